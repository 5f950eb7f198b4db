"""Models of any size with random weights, made where they shall run: for measuring time and memory."""

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.model import OpenVLA


def random_model(
    config: OpenVLAConfig, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> OpenVLA:
    """A model whose activations keep their size through the layers, so that its answers depend on its
    inputs. Weights are drawn on the device in `dtype`: nothing is held twice."""
    with torch.device("meta"):
        model = OpenVLA(config).to(dtype)
    model.to_empty(device=device)
    llama = model.language_model.model
    llama.rotary_emb = LlamaRotaryEmbedding(model.language_model.config).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fill(name, parameter, generator)
    if config.text_config.tie_word_embeddings:
        model.language_model.lm_head.weight = llama.embed_tokens.weight
    return model.eval()


def fill(name: str, parameter: nn.Parameter, generator: torch.Generator) -> Tensor:
    """Ones for scales, zeros for biases, else normal numbers with the variance 1 / inputs."""
    if parameter.ndim >= 2:
        inputs = parameter[0].numel() if parameter.shape[0] > 1 else parameter.shape[-1]
        return parameter.normal_(0.0, inputs**-0.5, generator=generator)
    return parameter.zero_() if name.endswith("bias") else parameter.fill_(1.0)
