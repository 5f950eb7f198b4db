"""Models of any size with random weights, made where they shall run, and random inputs for a model: for
measuring time and memory, and for holding two ways to run a model against each other."""

import torch
from torch import Tensor, nn

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
    fill(model, seed)
    model.finish_loading(device)
    return model.eval()


@torch.no_grad()
def fill(module: nn.Module, seed: int = 0) -> None:
    """Ones for scales, zeros for biases, else normal numbers with the variance 1 / inputs."""
    generator = torch.Generator(next(module.parameters()).device).manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim >= 2:
            inputs = parameter[0].numel() if parameter.shape[0] > 1 else parameter.shape[-1]
            parameter.normal_(0.0, inputs**-0.5, generator=generator)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def random_inputs(model: OpenVLA, count: int, length: int, seed: int = 0) -> dict[str, Tensor]:
    """Texts of `length` ids, normalized images and state: the model's keyword arguments for `count`
    samples, where it is and in its number format."""
    config, own = model.config, model.config.invact
    weight = next(model.vision_backbone.parameters())
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, config.vocab_size, (count, length), generator=generator)
    ids[:, 0] = 1
    channels, size = 3 * config.n_towers * len(own.cameras), config.image_size
    pixels = torch.randn(count, channels, size, size, generator=generator)
    batch = {"input_ids": ids.to(weight.device), "pixel_values": pixels.to(weight)}
    if own.proprio_dim:
        state = torch.rand(count, own.proprio_dim, generator=generator) * 2 - 1
        batch["proprio"] = state.to(weight)
    return batch
