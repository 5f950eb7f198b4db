"""The mark of tests that need a real GPU: `make gpu` runs them, everywhere else they are skipped."""

import pytest
import torch


def needs_gpu(function):
    """Mark a test `gpu`, and skip it where torch finds no CUDA device."""
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
    return pytest.mark.gpu(skip(function))
