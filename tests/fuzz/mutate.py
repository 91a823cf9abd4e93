"""Damage a file of any format: one in four blindly, the others as the format has it."""

from __future__ import annotations

from random import Random

from tests.fuzz import damage, other_formats
from tests.fuzz.damage import Mutator, blind

MUTATORS: dict[str, Mutator] = {
    "png": damage.png,
    "npy": damage.npy,
    "tiff": damage.tiff,
    "jpeg": damage.jpeg,
    **other_formats.MUTATORS,
}


def mutate(data: bytes, container: str, rng: Random) -> bytes:
    """Return a damaged copy; one in four is damaged blindly, some more than once."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = (blind if rng.random() < 0.25 else MUTATORS[container])(data, rng)
    return data
