"""A doubt where edges of depth lie elsewhere than edges of the image, and none where they lie on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from depth import DepthMap, masked_depth, note_alignment, read_depth
from depth.alignment import fits, looks_unaligned
from tests.depth.files import png8

FRAMES = sorted(
    path.parent for path in (Path(__file__).parents[2] / "examples" / "frames").glob("*/depth.png")
)
TURN = Image.Transpose
Change = Callable[[Image.Image], Image.Image]


def frame(folder: Path) -> tuple[NDArray[np.float64], Image.Image]:
    """Return metres and the image of a frame."""
    return np.asarray(Image.open(folder / "depth.png")) / 1000, Image.open(folder / "rgb.png").convert("RGB")


def metric(metres: NDArray[np.float64]) -> DepthMap:
    return masked_depth(np.ascontiguousarray(metres), "metric", 1.0)


def middle(image: Image.Image, zoom: float) -> Image.Image:
    margin = (1 - 1 / zoom) / 2
    start, end = round(384 * margin), round(384 * (1 - margin))
    return image.crop((start, start, end, end))


CHANGES: dict[str, Change] = {
    "turned by EXIF 6": lambda image: image.transpose(TURN.ROTATE_270),
    "turned by EXIF 3": lambda image: image.transpose(TURN.ROTATE_180),
    "turned by EXIF 8": lambda image: image.transpose(TURN.ROTATE_90),
    "mirrored": lambda image: image.transpose(TURN.FLIP_LEFT_RIGHT),
    "upside down": lambda image: image.transpose(TURN.FLIP_TOP_BOTTOM),
    "another lens": lambda image: middle(image, 1.25),
    "shifted": lambda image: image.crop((38, 0, 422, 384)),
}


@pytest.mark.parametrize("folder", FRAMES, ids=lambda path: path.name)
def test_the_bundled_frames_are_aligned_in_every_form(folder: Path) -> None:
    metres, image = frame(folder)
    for size in ((384, 384), (1280, 960), (96, 72)):
        assert not looks_unaligned(metric(metres), image.resize(size))
    assert not looks_unaligned(metric(metres[::2, ::3]), image)
    assert not looks_unaligned(masked_depth(1 / metres, "inverse"), image)
    assert not looks_unaligned(read_depth(png8(metres / metres.max() * 255))[0], image)
    holed = metres.copy()
    holed[:, :30], holed[200:260, 100:180] = 0, 0
    assert not looks_unaligned(metric(holed), image)
    assert not looks_unaligned(metric(np.roll(metres, 4, axis=1)), image)  # the parallax of two lenses


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("folder", FRAMES, ids=lambda path: path.name)
def test_what_is_turned_or_shifted_is_doubted(folder: Path, change: str) -> None:
    metres, image = frame(folder)
    depth = metric(metres)
    assert looks_unaligned(depth, CHANGES[change](image))
    report = read_depth((folder / "depth.png").read_bytes())[1]
    assert [one.code for one in note_alignment(report, depth, CHANGES[change](image)).notes] == [
        "maybe_unaligned"
    ]
    assert note_alignment(report, depth, image) == report


@pytest.mark.parametrize("folder", FRAMES[:2], ids=lambda path: path.name)
def test_depth_of_a_wider_lens_is_doubted(folder: Path) -> None:
    metres, image = frame(folder)
    assert looks_unaligned(metric(metres[38:-38, 38:-38]), image)


def test_where_nothing_can_be_seen_there_is_no_doubt() -> None:
    metres, image = frame(FRAMES[0])
    flat = Image.new("RGB", image.size, "grey")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (384, 384, 3), dtype=np.uint8))
    sparse = np.where(np.random.default_rng(0).random(metres.shape) < 0.05, metres, 0)
    slope = np.tile(np.linspace(1, 2, 384), (384, 1))
    for depth, other in (
        (metres, flat),
        (metres, noise),
        (sparse, image),
        (slope, image),
        (metres[:1, :2], image),
    ):
        assert not looks_unaligned(metric(depth), other)
    assert fits(metric(sparse), image) == (0, 0)
