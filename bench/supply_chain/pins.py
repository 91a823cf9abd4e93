"""Which packages each image holds, by the locks and by what the Dockerfile cuts from them."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

from tests import locks
from tests.locks import Pin

IMAGES = {"cpu": "runtime", "cuda": "runtime", "ray": "ray", "load": "load"}
"""Targets of the Dockerfile, and the lock that each is installed from."""
CUDA = re.compile(r"triton|cuda-[a-z-]+|nvidia-[a-z0-9-]+")
TORCH = ("torch", "torchvision")
INSIDE = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.12.12",
    "python_version": "3.12",
    "sys_platform": "linux",
}
"""What markers see in an image."""


@cache
def contents(image: str, python: str = INSIDE["python_full_version"]) -> tuple[Pin, ...]:
    """Return the packages of an image. torch for CPUs has no hashes: it comes from an index of its own.

    The load generator asks questions and answers none, so it has no torch.
    """
    inside = INSIDE | {"python_full_version": python, "python_version": ".".join(python.split(".")[:2])}
    pins = [pin for pin in locks.pins(locks.text(IMAGES[image])) if pin.applies_in(inside)]
    if image == "cuda":
        return tuple(pins)
    kept = [pin for pin in pins if not CUDA.fullmatch(pin.name)]
    if image == "load":
        return tuple(pin for pin in kept if pin.name not in TORCH)
    return tuple(replace(pin, hashes=()) if pin.name in TORCH else pin for pin in kept)


def images_of(name: str) -> list[str]:
    """Return the images that hold a package."""
    return [image for image in IMAGES if name in {pin.name for pin in contents(image)}]


def everything() -> dict[str, Pin]:
    """Return the packages of all images by name."""
    return {pin.name: pin for image in IMAGES for pin in contents(image)}
