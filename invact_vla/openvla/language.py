"""The Llama of OpenVLA, from transformers, with our choice of attention."""

import copy
from functools import partial
from typing import get_args

from transformers import LlamaForCausalLM
from transformers.modeling_utils import AttentionInterface

from invact_vla.openvla.attention import AttentionImpl, llama_attention
from invact_vla.openvla.config import OpenVLAConfig

for _choice in get_args(AttentionImpl):
    AttentionInterface.register(f"invact_{_choice}", partial(llama_attention, attention=_choice))


def build_llama(config: OpenVLAConfig, attention: AttentionImpl = "auto") -> LlamaForCausalLM:
    """A Llama with random weights (or none, on the meta device)."""
    inner = copy.deepcopy(config.text_config)
    inner.pad_token_id = config.pad_token_id
    inner._attn_implementation = f"invact_{attention}"
    return LlamaForCausalLM(inner)
