"""Render a depth map for display: near is bright, holes have a separate colour."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from depth.codes import proximity, robust_range
from depth.depth_map import DepthMap

HOLE = (178, 34, 102)
LONGEST_PX, SHORTEST_PX = 1024, 512
_BAR_PX, _TICKS, _MARGIN_PX = 84, 5, 6
_BACKGROUND, _INK = (24, 24, 24), (235, 235, 235)


def depth_picture(depth: DepthMap) -> Image.Image:
    """Return an RGB rendering of the map, scaled like the codes, with a scale bar: metres, or near and far.

    The long side is resized to about 512 to 1024 px by nearest neighbour, without interpolation.
    """
    near = proximity(depth)
    low, high = robust_range(near[depth.valid])
    grey = ((near - low) / max(high - low, 1e-12)).clip(0, 1) * 255
    pixels = np.where(depth.valid[..., None], grey[..., None], HOLE).astype(np.uint8)
    view = Image.fromarray(_fit(pixels))
    canvas = Image.new("RGB", (view.width + _BAR_PX, view.height), _BACKGROUND)
    canvas.paste(view)
    _draw_bar(canvas, view.width + _MARGIN_PX, [_label(depth, value) for value in _ticks(low, high)])
    return canvas


def _fit(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    longest = max(pixels.shape[:2])
    step, times = math.ceil(longest / LONGEST_PX), max(1, round(SHORTEST_PX / longest))
    return np.ascontiguousarray(pixels[::step, ::step].repeat(times, 0).repeat(times, 1))


def _ticks(low: float, high: float) -> list[float]:
    return [high + (low - high) * index / (_TICKS - 1) for index in range(_TICKS)]


def _label(depth: DepthMap, value: float) -> str:
    if depth.unit == "m":
        return f"{1 / value:.3g} m"
    if depth.unit == "1/m":
        return "far" if value <= 0 else f"{1 / value:.3g} m"
    return ""


def _draw_bar(canvas: Image.Image, left: int, labels: list[str]) -> None:
    """Draw near at the top and far at the bottom, with labels beside their grey."""
    draw, height = ImageDraw.Draw(canvas), canvas.height
    for row in range(height):
        grey = 255 - round(255 * row / max(height - 1, 1))
        draw.line((left, row, left + 12, row), fill=(grey, grey, grey))
    if not any(labels):
        labels = ["near", *[""] * (len(labels) - 2), "far"]
    for index, label in enumerate(labels):
        top = round((height - 12) * index / (len(labels) - 1))
        draw.text((left + 18, top), label, fill=_INK)
