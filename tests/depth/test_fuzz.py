"""A small campaign of tests/fuzz, and for everything it watches a decoder that fails it."""

import gc
import io
import time
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from mmap import mmap
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depth import DepthError, DepthMap, masked_depth
from tests.depth import writers
from tests.depth.files import decode_depth
from tests.fuzz.campaign import Decode, run
from tests.fuzz.mutate import MUTATORS, mutate
from tests.fuzz.other_formats import OPTIONS, damage_zip
from tests.fuzz.seeds import seeds, shorten
from tests.needs import needs

FILES = 2500


def test_damaged_files_raise_nothing_but_depth_errors_fast_and_miss_no_pixel() -> None:
    summary = run(decode_depth, FILES, seed=20)
    assert summary.failures == []
    assert sum(summary.files.values()) == FILES and len(summary.files) == 3 * len(MUTATORS)
    # The damage goes deep enough to pass, and wide enough to be refused in many ways.
    assert summary.outcomes["accepted"] > FILES * 0.1 and len(summary.outcomes) >= 8


def test_an_archive_that_is_damaged_already_can_be_damaged_again() -> None:
    """With every bit of the flags of its members, of which the first says that it is encrypted."""
    archive = writers.npz(depth=np.ones((3, 3), "f4"))
    for bit in range(16):
        flags = (1 << bit).to_bytes(2, "little")
        for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = archive.index(mark) + offset
            damaged = archive[:at] + flags + archive[at + 2 :]
            for seed in range(10):
                assert isinstance(damage_zip(damaged, Random(seed)), bytes)
            with suppress(DepthError):
                decode_depth(damaged)


def test_memory_is_flat() -> None:
    files = _files(300)
    _decode_all(files)
    tracemalloc.start()
    try:
        before = _kept_bytes(files)
        after = _kept_bytes(files)
    finally:
        tracemalloc.stop()
    assert after - before < 64 * 1024


def test_a_campaign_is_repeatable() -> None:
    first, second = (run(decode_depth, 200, seed=1) for _ in range(2))
    assert (first.files, first.outcomes) == (second.files, second.outcomes)


def _raises() -> Decode:
    calls = iter(range(10**6))

    def decode(data: bytes, **options: Any) -> DepthMap:
        if next(calls) > 100:  # the campaign decodes good files first
            raise KeyError("a bug")
        return decode_depth(data, **options)

    return decode


def _refuses() -> Decode:
    calls = iter(range(10**6))

    def decode(data: bytes, **options: Any) -> DepthMap:
        if next(calls) > 100:
            raise DepthError("truncated")
        return decode_depth(data, **options)

    return decode


def _is_slow() -> Decode:
    def decode(data: bytes, **options: Any) -> DepthMap:
        until = time.thread_time() + 0.004
        while time.thread_time() < until:
            pass
        return decode_depth(data, **options)

    return decode


def _leaks() -> Decode:
    kept: list[mmap] = []

    def decode(data: bytes, **options: Any) -> DepthMap:
        pages = mmap(-1, 200_000)  # malloc could hand out what earlier tests gave back
        pages.write(b"x" * 200_000)
        kept.append(pages)
        return decode_depth(data, **options)

    return decode


def _pads() -> Decode:
    """What Pillow does by itself with a PNG that ends between two rows."""

    def decode(data: bytes, **options: Any) -> DepthMap:
        try:
            return decode_depth(data, **options)
        except DepthError:
            try:
                with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                    return masked_depth(np.asarray(image.convert("I")), "metric", 1000)
            except Exception:
                raise DepthError("truncated") from None

    return decode


@pytest.mark.parametrize(
    ("broken", "number", "limit_ms", "sentence"),
    [
        (_raises, 100, 250, "raised KeyError"),
        (_refuses, 300, 250, "refused as truncated"),
        (_is_slow, 20, 2, "took"),
        (_pads, 300, 250, "accepted with pixels missing"),
    ],
)
def test_a_broken_decoder_is_caught(
    broken: Callable[[], Decode], number: int, limit_ms: float, sentence: str
) -> None:
    summary = run(broken(), number, seed=2, limit_ms=limit_ms)
    assert any(sentence in failure for failure, _ in summary.failures)
    assert any(sentence in line for line in summary.lines())


@needs("memory of a process")
def test_a_leak_is_caught() -> None:
    summary = run(_leaks(), 250, seed=3)
    assert any("memory grew" in failure for failure, _ in summary.failures)


@pytest.mark.parametrize(
    ("gate", "open_gate"),
    [
        ("png.inflated_pixels", lambda stream, _: zlib.decompress(stream)),
        ("jpeg.check_jpeg_complete", lambda *_: None),
    ],
)
def test_without_the_gate_missing_pixels_would_pass(
    gate: str, open_gate: Callable[..., bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"depth.formats.{gate}", open_gate)
    summary = run(decode_depth, 600, seed=5)
    assert any("accepted with pixels missing" in failure for failure, _ in summary.failures)


def test_blind_damage_alone_would_stay_at_the_sums() -> None:
    """Twin of the PNG mutator: repairing sums lets far more damage in."""
    container, data = seeds()[0]
    rng = Random(0)
    blind = [decoded(data[:at] + bytes((data[at] ^ 8,)) + data[at + 1 :]) for at in range(33, len(data))]
    repaired = [decoded(mutate(data, container, rng)) for _ in range(400)]
    assert sum(blind) / len(blind) < 0.05 < sum(repaired) / len(repaired)


def decoded(data: bytes, **options: Any) -> bool:
    try:
        decode_depth(data, **options)
    except DepthError:
        return False
    return True


def _files(number: int) -> list[tuple[str, bytes]]:
    rng, good = Random(6), seeds()
    picked = [rng.choice(good) for _ in range(number)]
    return [(one[0], (shorten if index % 5 == 0 else _mutate)(*one, rng)) for index, one in enumerate(picked)]


def _mutate(container: str, data: bytes, rng: Random) -> bytes:
    return mutate(data, container, rng)


def _kept_bytes(files: list[tuple[str, bytes]]) -> int:
    """Decode all, and count what is allocated after that, without cycles that wait for the collector."""
    _decode_all(files)
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _decode_all(files: list[tuple[str, bytes]]) -> None:
    for container, data in files:
        decoded(data, **OPTIONS.get(container, {}))
