"""Pictures show what happened: groups in their mean colour, dropped patches hatched, layers in order."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tosa import EncoderShape, MergeSpec, Tokens, make_plan
from vlm import Vlm, encode, pixel_values
from vlm.overlay import PlotsMissing, draw_groups, film_strip, plot_tokens, strip_of, telling_layers

GREY = Image.new("RGB", (40, 40), (90, 90, 90))
ALONE = np.arange(4)


def drawn(image: Image.Image, source: NDArray[np.int64], grid: tuple[int, int] = (2, 2)) -> NDArray[np.uint8]:
    return np.asarray(draw_groups(image, source, grid))


def test_groups_are_painted_in_their_mean_colour() -> None:
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    pixels[:20], pixels[20:, :20], pixels[20:, 20:] = 100, 200, 50
    image = Image.fromarray(pixels)
    merged = drawn(image, np.array([0, 0, 0, 1]))  # three patches are one token, the last is alone
    assert merged.shape == pixels.shape
    assert merged[5, 5].tolist() == [133, 133, 133] == merged[35, 5].tolist()
    assert (merged[20:, 20:] == 50).all()  # not merged: as it was, no edge
    assert merged[19, 30].tolist() != [133, 133, 133]  # the edge of the group
    assert (drawn(image, ALONE) == pixels).all()


@pytest.mark.parametrize("level", [0, 90, 255])
def test_dropped_patches_are_told_from_pixels_of_any_brightness(level: int) -> None:
    image = Image.new("RGB", (40, 40), (level,) * 3)
    hatched = drawn(image, np.array([0, -1, 1, 2]))[:20, 20:]
    assert len(np.unique(hatched)) == 2  # the darkened image and the lines on it
    assert hatched.min() <= level and hatched.max() == 150
    untouched = drawn(image, np.array([0, -1, 1, 2]))[20:]
    assert (untouched == level).all()


def test_everything_may_be_dropped() -> None:
    assert (drawn(GREY, np.full(4, -1)) != 90).all()


def test_a_class_token_shifts_numbers_and_changes_nothing() -> None:
    source = np.array([0, 0, 1, 1])
    assert (drawn(GREY, source) == drawn(GREY, source + 1)).all()


def test_a_group_keeps_its_colour_when_tokens_are_numbered_anew() -> None:
    assert (drawn(GREY, np.array([3, 3, 5, 5])) == drawn(GREY, np.array([1, 1, 0, 0]))).all()
    assert (drawn(GREY, np.array([0, 0, 1, 1])) != drawn(GREY, np.array([0, 1, 1, 0]))).any()


def test_a_strip_has_a_labelled_frame_per_source() -> None:
    image = Image.new("RGB", (80, 40), (90, 90, 90))
    sources = [ALONE, np.array([0, 0, 1, 2]), np.array([0, 0, 0, 0])]
    labels = ["layer 0: 4 tokens", "layer 1: 3 tokens", "layer 2: 1 tokens"]
    strip = film_strip(image, sources, (2, 2), labels, columns=2, frame_px=80)
    assert strip.size == (2 * 86 + 6, 2 * (40 + 18 + 6) + 6)
    pixels = np.asarray(strip)
    for number, source in enumerate(sources):
        x, y = 6 + number % 2 * 86, 6 + number // 2 * 64
        assert (pixels[y : y + 40, x : x + 80] == drawn(image, source)).all()
        assert (pixels[y + 40 : y + 58, x : x + 80] < 128).any()  # its label
    assert (pixels[70:, 92:] == 255).all()  # no fourth frame
    assert film_strip(image, sources[:1], (2, 2), ["one"]).width < 2 * 240


@pytest.mark.parametrize(
    ("counts", "layers"),
    [
        ([16, 16, 16], [1]),
        ([16, 12, 12, 8], [0, 2]),
        (list(range(28, 0, -1)), [0, 4, 7, 11, 15, 19, 22, 26]),
        (list(range(9, 0, -1)), list(range(8))),
    ],
)
def test_layers_worth_showing(counts: list[int], layers: list[int]) -> None:
    assert telling_layers(counts) == layers


def test_the_strip_of_a_trace_shows_the_layers_that_merged(
    vlm: Vlm, sample_images: list[Image.Image]
) -> None:
    plan = make_plan(MergeSpec("tome", r=(4, 0, 4)), vlm.shape)
    trace: list[Tokens] = []
    with torch.inference_mode():
        encode(vlm.tower, pixel_values(vlm, sample_images[:1]), plan, trace=trace)
    sources = [trace[layer].source[0].numpy() for layer in (0, 2)]
    expected = film_strip(
        sample_images[0], sources, vlm.shape.grid, ["layer 0: 12 tokens", "layer 2: 8 tokens"]
    )
    assert strip_of(sample_images[0], trace, vlm.shape.grid) == expected


def test_the_plot_is_a_image(tmp_path: Path) -> None:
    shape = EncoderShape(8, (24, 24), num_prefix=1, hidden_size=8, mlp_size=8)
    plans = [make_plan(MergeSpec("tome", keep_ratio=keep), shape) for keep in (0.5, 0.25)]
    plot_tokens(plans, tmp_path / "one")
    plot_tokens(plans[:1], tmp_path / "other")
    with Image.open(tmp_path / "one") as one, Image.open(tmp_path / "other") as other:
        assert one.format == "PNG" and one.size == other.size and one.tobytes() != other.tobytes()
    with pytest.raises(OSError, match="No such file"):
        plot_tokens(plans, tmp_path / "no" / "out.png")


def test_without_matplotlib_the_plot_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PlotsMissing, match=r"tosa-vqa\[plots\]"):
        plot_tokens([], tmp_path / "out.png")
    assert not list(tmp_path.iterdir())
