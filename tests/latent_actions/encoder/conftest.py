"""What several tests of the encoder need."""

import pytest
import torch


@pytest.fixture(scope="session")
def image_model(tmp_path_factory):
    """A tiny DINOv2 with random weights, in transformers' layout."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("image_model")
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=7
    )
    Dinov2Model(config).save_pretrained(folder)
    return str(folder)
