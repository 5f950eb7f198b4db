"""The Llama of OpenVLA, from transformers, with our choice of attention."""

from functools import partial
from typing import get_args

from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import AttentionInterface

from invact_vla.openvla.attention import Attention, llama_attention
from invact_vla.openvla.config import OpenVLAConfig, TextConfig

for _choice in get_args(Attention):
    AttentionInterface.register(f"invact_{_choice}", partial(llama_attention, attention=_choice))


def llama_config(config: TextConfig, pad_token_id: int) -> LlamaConfig:
    """TextConfig -> transformers' LlamaConfig."""
    rope = {"rope_type": "default", **(config.rope_scaling or {}), "rope_theta": config.rope_theta}
    rope["rope_type"] = rope.pop("type", rope["rope_type"])  # the old name of the field
    return LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        hidden_act=config.hidden_act,
        rms_norm_eps=config.rms_norm_eps,
        max_position_embeddings=config.max_position_embeddings,
        rope_parameters=rope,
        initializer_range=config.initializer_range,
        attention_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
        attention_dropout=config.attention_dropout,
        tie_word_embeddings=config.tie_word_embeddings,
        pad_token_id=pad_token_id,
        bos_token_id=1,
        eos_token_id=2,
    )


def build_llama(config: OpenVLAConfig, attention: Attention = "auto") -> LlamaForCausalLM:
    """A Llama with random weights (or none, on the meta device)."""
    inner = llama_config(config.text_config, config.pad_token_id)
    inner._attn_implementation = f"invact_{attention}"
    return LlamaForCausalLM(inner)
