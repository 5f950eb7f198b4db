"""A CUDA device on a machine without one: tensors with shapes, number formats and places, and no values.

torch's FakeTensorMode runs a network on "cuda" without a driver and raises where operands lie on
different devices. This module adds what it leaves out:

- values that the host asks for (`.item()`, `bool(t)`, a boolean mask): made up, so that control flow
  goes on; a mask chooses everything;
- `.numpy()`, the border of a stage: zeros, and the error that a real tensor gives when it was not
  brought to the CPU first or has no NumPy number format;
- mistakes that fake tensors do not see: a CPU table read by indices on the GPU, a generator of another
  device.

Backward passes need a driver and are left to tests on a real GPU: autograd puts a gradient where its
tensor is.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
_aten = torch.ops.aten
_real_numpy = torch.Tensor.numpy


# inference mode hands over the functions that otherwise fall apart into _local_scalar_dense
_READS = (_aten._local_scalar_dense.default, _aten.item.default, _aten.is_nonzero.default)


class WrongDeviceError(RuntimeError):
    """What a real GPU would not do."""


class MadeUpValues(TorchDispatchMode):
    """Answers the operators whose result, or its shape, depends on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        _check_generator(func, args, kwargs)
        if func in _READS and getattr(args[0], "constant", 0) is None:
            return _one(args[0].dtype)
        if any(getattr(a, "type", "") == "cuda" for a in (*args, *kwargs.values())):
            for tensor in tree_leaves(
                args
            ):  # a list behind torch.tensor(list) would really be copied
                if isinstance(tensor, FakeTensor):
                    tensor.constant = None
        if func in (_aten.nonzero.default, _aten.bincount.default):
            return _all_of(func, args[0])
        if func is _aten.masked_select.default:
            return args[0].new_empty(args[0].numel())
        if func in (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default):
            args = (args[0], _whole(args[0], args[1]), *args[2:])
        return func(*args, **kwargs)


@contextlib.contextmanager
def fake_cuda() -> Iterator[torch.device]:
    """Inside, all new tensors are fake, and the yielded device is a GPU. Build networks on the CPU and
    move them, or under `with device:`; leave that before running them, or constants follow it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "numpy", _numpy)
        patch.setattr(torch.nn.Module, "_apply", _apply)
        patch.setattr(FakeTensor, "__deepcopy__", _deepcopy, raising=False)
        # draws again and again while any number is out of bounds, which made-up values always are
        patch.setattr(torch.nn.init, "_no_grad_trunc_normal_", lambda tensor, *_, **__: tensor)
        fakes = FakeTensorMode(allow_non_fake_inputs=False, shape_env=ShapeEnv())  # for jagged ones
        with fakes, MadeUpValues():
            yield CUDA


def build(make: Any, device: torch.device = CUDA) -> Any:
    """What `make()` builds, on the GPU."""
    with device:
        return make()


def _one(dtype: torch.dtype) -> bool | int | float:
    if dtype is torch.bool:
        return True
    return 1.0 if dtype.is_floating_point else 1


def _all_of(func: Any, values: torch.Tensor) -> torch.Tensor:
    """As if no entry were 0; as if every group had one member."""
    shape = (values.numel(), values.ndim) if func is _aten.nonzero.default else (values.numel(),)
    return values.new_empty(shape, dtype=torch.int64)


def _whole(table: torch.Tensor, indices: Any) -> list[torch.Tensor | None]:
    """Boolean masks as the indices of all their entries; the error of a CPU table and GPU indices."""
    found: list[torch.Tensor | None] = []
    for index in indices:
        if index is not None and index.device != table.device and index.device.type != "cpu":
            raise WrongDeviceError(f"indices on {index.device} into a table on {table.device}")
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            found += [index.new_empty(index.numel(), dtype=torch.int64) for _ in index.shape]
        else:
            found.append(index)
    return found


def _check_generator(func: Any, args: Any, kwargs: Any) -> None:
    generator = kwargs.get("generator")
    if generator is None:
        return
    for tensor in tree_leaves((args, kwargs)):
        if isinstance(tensor, torch.Tensor) and tensor.device.type != generator.device.type:
            raise WrongDeviceError(
                f"{func}: expected a generator on {tensor.device}, found {generator.device}"
            )


def _apply(module: torch.nn.Module, change: Any, recurse: bool = True) -> torch.nn.Module:
    """Module.to and its like: torch's own swaps tensors in place, which fake ones refuse."""
    for child in module.children():
        child._apply(change)
    for name, value in module._parameters.items():
        if value is not None:
            changed = torch.nn.Parameter(change(value.detach()), value.requires_grad)
            module._parameters[name] = changed
    for name, value in module._buffers.items():
        module._buffers[name] = None if value is None else change(value)
    return module


def _deepcopy(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    """A copy in the same mode: torch's own copies the mode as well."""
    if id(tensor) not in memo:
        copied = tensor.detach().clone()
        if isinstance(tensor, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, tensor.requires_grad)
        memo[id(tensor)] = copied
    return memo[id(tensor)]


def _numpy(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> np.ndarray:
    if not isinstance(tensor, FakeTensor):
        return _real_numpy(tensor, *args, **kwargs)
    if tensor.device.type != "cpu":
        raise WrongDeviceError(
            f"cannot convert a tensor on {tensor.device} to NumPy: use .cpu() first"
        )
    if tensor.requires_grad:
        raise RuntimeError("cannot call numpy() on a tensor that requires grad")
    with torch._C._DisableTorchDispatch():
        dtype = _real_numpy(torch.empty(0, dtype=tensor.dtype)).dtype
    return np.zeros(tuple(tensor.shape), dtype)
