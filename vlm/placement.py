"""A model on several devices (`device_map`): the layers of its language model, one device after another.

Everything else is on the first device: tower, reducer, embedding table, norm and head. A layer runs where its
weights are, and accelerate moves there what it is given.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from typing import Any, Literal

import torch
from torch import nn

from vlm.checkpoint_files import available_device
from vlm.model import VlmError

DeviceMap = Literal["none", "auto", "balanced", "sequential"]
FREE_SHARE = 0.8
"""Share of the free memory of a GPU that weights may take; activations and caches need the rest."""
GIB = 2**30


@dataclass(frozen=True)
class Devices:
    """Several devices for one model. room: bytes of weights on each, the first device first.

    evenly: all take about the same; otherwise each is filled before the next one.
    """

    room: Mapping[torch.device, int]
    evenly: bool

    @property
    def first(self) -> torch.device:
        return next(iter(self.room))


def devices_of(
    device_map: DeviceMap, device: torch.device, memory: Mapping[str, float] | None = None
) -> Devices | None:
    """Return the devices to share a model, None for `device` alone.

    memory: bytes of weights by device; if not given, FREE_SHARE of what is free on every GPU. `device` is the
    first of them. "auto" is "balanced", as in transformers. Raises VlmError: missing_package without
    accelerate, device_unavailable, and unsupported_device_map.
    """
    if device_map == "none":
        if memory:
            raise VlmError(
                "unsupported_device_map", "memory for devices needs a device_map: auto or sequential"
            )
        return None
    if device_map not in ("auto", "balanced", "sequential"):
        message = f"device_map {device_map} is not known; it is none, auto, balanced or sequential"
        raise VlmError("unsupported_device_map", message)
    if find_spec("accelerate") is None:
        message = "a model on several devices needs accelerate: pip install 'tosa-vqa[devices]'"
        raise VlmError("missing_package", message)
    if memory is None:
        room = _free_memory()
    else:
        room = {_numbered(available_device(name, VlmError)): int(size) for name, size in memory.items()}
    first = _numbered(device)
    if first not in room:
        names = ", ".join(map(str, room)) or "none, since torch finds no GPU"
        message = (
            f"device {first} is to have the vision tower, and the devices of device_map are {names}: "
            "set device to one of them, or leave device_map at none"
        )
        raise VlmError("device_unavailable", message)
    others = {each: size for each, size in room.items() if each != first}
    return Devices({first: room[first], **others}, evenly=device_map != "sequential")


def _free_memory() -> dict[torch.device, int]:
    gpus = (torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    return {gpu: int(FREE_SHARE * torch.cuda.mem_get_info(gpu)[0]) for gpu in gpus}


def _numbered(device: torch.device) -> torch.device:
    """Return cuda:0 for cuda: the devices of weights have numbers."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def require_parts(text_model: Any) -> None:
    """Raise VlmError (unsupported_device_map) for a language model without layers and norm of these names."""
    if not (hasattr(text_model, "layers") and hasattr(text_model, "norm")):
        message = f"{type(text_model).__name__} has no layers and norm to divide: leave device_map at none"
        raise VlmError("unsupported_device_map", message)


def place(model: Any, layers: nn.ModuleList, devices: Devices, dtype: torch.dtype) -> list[torch.device]:
    """Return the device of every layer. model: without weights, on the meta device.

    Raises VlmError (unsupported_device_map) where the devices have too little room.
    """
    sizes = [_bytes(layer, dtype) for layer in layers]
    rest, room = _bytes(model, dtype) - sum(sizes), list(devices.room.values())
    found = split(rest, sizes, room, evenly=devices.evenly)
    if found is None:
        given = ", ".join(f"{size / GIB:.2f} GiB on {each}" for each, size in devices.room.items())
        message = (
            f"its weights are {rest / GIB:.2f} GiB on the first device, and {len(sizes)} layers of up to "
            f"{max(sizes) / GIB:.2f} GiB; there is room for {given}: name more memory or more devices"
        )
        raise VlmError("unsupported_device_map", message)
    every = list(devices.room)
    return [every[at] for at in found]


def split(rest: int, layers: Sequence[int], room: Sequence[int], *, evenly: bool) -> list[int] | None:
    """Return which device each layer is on, in order; None if they do not fit.

    rest: bytes on the first device beside its layers. layers, room: bytes of each layer and on each device.
    evenly: with the lowest limit for all devices that lets everything fit.
    """

    def filled(limit: int) -> list[int] | None:
        return _fill(rest, layers, [min(limit, each) for each in room])

    most = max(room)
    if not evenly or filled(most) is None:
        return filled(most)
    lowest = bisect_left(range(most), True, key=lambda limit: filled(limit) is not None)
    return filled(lowest)


def _fill(rest: int, layers: Sequence[int], room: Sequence[int]) -> list[int] | None:
    at, used, found = 0, rest, list[int]()
    for size in layers:
        while used + size > room[at]:
            if used > room[at] or at + 1 == len(room):
                return None
            at, used = at + 1, 0
        used += size
        found.append(at)
    return found if used <= room[at] else None


def _bytes(module: nn.Module, dtype: torch.dtype) -> int:
    """Return the bytes of the weights of a module, those that are tied once."""
    return sum(each.numel() for each in module.parameters()) * dtype.itemsize


def by_name(
    model: nn.Module, layers: nn.ModuleList, places: Sequence[torch.device], first: torch.device
) -> dict[str, torch.device]:
    """Return the device of every part of a model by its name, as transformers takes a `device_map`.

    There is no entry for the whole, to which accelerate would move everything first.
    """
    within = next(name for name, module in model.named_modules() if module is layers)
    found = {f"{within}.{index}": place for index, place in enumerate(places)}
    path = within.split(".")
    for depth, own in enumerate(path):
        above = ".".join(path[:depth])
        module = model.get_submodule(above)
        parts = chain(
            module.named_children(),
            module.named_parameters(recurse=False),
            module.named_buffers(recurse=False),
        )
        found |= {f"{above}.{name}".lstrip("."): first for name, _ in parts if name != own}
    return found


@contextmanager
def parameters_have_names() -> Iterator[None]:
    """Keep accelerate from warning that some entries of a `device_map` are parameters and not modules."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*device_map keys do not match any submodules")
        yield


def connect(model: Any, text_model: Any, places: Sequence[torch.device], first: torch.device) -> None:
    """Let accelerate move what the layers on other devices are given there, and the last states back.

    The model was loaded to these places, with hooks on all its modules: those are removed, since `encode`
    reads the weights of a tower itself and refuses layers with another forward.
    """
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module

    for module in model.modules():
        if hasattr(module, "_hf_hook"):
            remove_hook_from_module(module)
            vars(module).pop("forward", None)  # accelerate leaves that of the class on the instance
    elsewhere = [
        (layer, place) for layer, place in zip(text_model.layers, places, strict=True) if place != first
    ]
    for module, place in (*elsewhere, (text_model.norm, first)) if elsewhere else ():
        hook = AlignDevicesHook(place)
        add_hook_to_module(module, hook)
