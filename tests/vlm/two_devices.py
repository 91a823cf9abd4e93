"""A second device on every machine: tensors that say they are there, and cannot meet those that are not.

Their values are on the CPU, so that results can be compared to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

CPU, SECOND = torch.device("cpu"), torch.device("lazy:0")
"""SECOND is of a kind that torch has by name, and runs nothing on by itself."""


class There(Tensor):
    """A tensor on SECOND. held: its values, on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        own = {"strides": held.stride(), "dtype": held.dtype, "device": SECOND}
        made = Tensor._make_wrapper_subclass(cls, held.shape, **own)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Moves(TorchDispatchMode):
    """Run what makes tensors on SECOND, or moves them there, of tensors that are not."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation where its tensors are, or on the device that it names."""
    given, form = tree_flatten((args, dict(kwargs)))
    named = next((each for each in given if isinstance(each, torch.device)), None)
    there = [isinstance(each, There) for each in given if isinstance(each, Tensor) and _has_place(each)]
    if named is None and any(there) and not all(there):
        raise RuntimeError(f"{func} was given tensors on two devices")
    plain = [each.held if isinstance(each, There) else CPU if each == SECOND else each for each in given]
    own_args, own_kwargs = tree_unflatten(plain, form)
    result = func(*own_args, **own_kwargs)
    if func._schema.is_mutable:
        return given[0]
    if not (any(there) if named is None else named == SECOND):
        return result
    return tree_map(lambda each: There(each) if isinstance(each, Tensor) else each, result)


def _has_place(tensor: Tensor) -> bool:
    """Say whether a tensor is on one device: a number on the CPU may meet all of them."""
    return tensor.ndim > 0 or isinstance(tensor, There)


@contextmanager
def second_device() -> Iterator[None]:
    """Let code move tensors to SECOND and make them there."""
    make = torch.tensor

    def tensor(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:  # the mode does not see it made
        made = make(*args, **kwargs)
        return made if device is None else made.to(device)

    torch.tensor = tensor
    try:
        with _Moves():
            yield
    finally:
        torch.tensor = make


def move(module: nn.Module) -> None:
    """Move the weights and buffers of a module to SECOND."""
    for each in module.modules():
        for name, parameter in each.named_parameters(recurse=False):
            each._parameters[name] = nn.Parameter(There(parameter.data), requires_grad=False)
        for name, buffer in each.named_buffers(recurse=False):
            each._buffers[name] = There(buffer)
