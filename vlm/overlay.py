"""Figures of merging: the merged groups of patches, layer by layer, and the tokens that every layer keeps.

Inputs are the patch grid and the token of every patch, without prefix tokens.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tosa import MergePlan, Tokens

GOLDEN_ANGLE = 0.618033988749895
"""Step of the hue, in turns, between neighbouring patches; keeps their hues apart."""
HATCH_GREY, HATCH_PX = 150, 6
LABEL_PX, MARGIN_PX = 18, 6


class PlotsMissing(Exception):
    """Plots need matplotlib, which is not installed."""


def draw_groups(image: Image.Image, source: NDArray[np.int64], grid: tuple[int, int]) -> Image.Image:
    """Paint every merged group in its mean colour, with an edge in a distinct colour; single patches stay.

    source [P] is the token of each patch of the row-major grid (rows, columns), -1 for a dropped one, which
    is darkened and hatched. A group keeps its colour from layer to layer while it keeps its first patch.
    """
    pixels = np.asarray(image.convert("RGB"))
    leaders = _leaders(source)
    groups = _group_of_pixels(leaders.reshape(grid), pixels.shape[:2])
    patches = np.bincount(leaders[leaders >= 0], minlength=source.size)
    is_merged = (groups >= 0) & (patches[groups] > 1)
    painted = np.where(is_merged[..., None], _mean_colour(pixels, groups)[groups], pixels)
    painted = np.where((groups < 0)[..., None], _hatched(pixels), painted)
    edges = _edges(groups) & is_merged
    painted[edges] = _hues(source.size)[groups[edges]]
    return Image.fromarray(painted.astype(np.uint8))


def film_strip(
    image: Image.Image,
    sources: Sequence[NDArray[np.int64]],
    grid: tuple[int, int],
    labels: Sequence[str],
    columns: int = 4,
    frame_px: int = 240,
) -> Image.Image:
    """Draw the groups of each source [P] on the image, one frame each, in rows of `columns`, labelled below.

    frame_px: width of a frame; the image keeps its aspect ratio.
    """
    small = image.resize((frame_px, max(1, round(frame_px * image.height / image.width))))
    cell = frame_px + MARGIN_PX, small.height + LABEL_PX + MARGIN_PX
    columns = min(columns, len(sources))
    rows = -(-len(sources) // columns)
    strip = Image.new("RGB", (columns * cell[0] + MARGIN_PX, rows * cell[1] + MARGIN_PX), "white")
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default()
    for number, (source, label) in enumerate(zip(sources, labels, strict=True)):
        row, column = divmod(number, columns)
        x, y = MARGIN_PX + column * cell[0], MARGIN_PX + row * cell[1]
        strip.paste(draw_groups(small, source, grid), (x, y))
        pen.text((x, y + small.height + 2), label, fill="black", font=font)
    return strip


def strip_of(image: Image.Image, trace: Sequence[Tokens], grid: tuple[int, int]) -> Image.Image:
    """Draw the film strip of the first image of a trace, one `Tokens` per layer as `encode` records them.

    Only layers that changed the number of tokens are shown, at most eight.
    """
    counts = [len(trace[0].source[0]), *(tokens.size.shape[1] - tokens.num_prefix for tokens in trace)]
    layers = telling_layers(counts)
    sources = [trace[layer].source[0].cpu().numpy() for layer in layers]
    return film_strip(
        image, sources, grid, [f"layer {layer}: {counts[layer + 1]} tokens" for layer in layers]
    )


def telling_layers(counts: Sequence[int], most: int = 8) -> list[int]:
    """Choose layers to show, from tokens at the entry of layer 0..L-1 and at the end (MergePlan.counts).

    Those that changed the number of tokens, of more than `most` evenly spaced ones with the first and the
    last; where nothing changed, the last layer.
    """
    changed = [layer for layer, (before, after) in enumerate(pairwise(counts)) if after != before]
    if not changed:
        return [len(counts) - 2]
    if len(changed) <= most:
        return changed
    return [changed[round(i * (len(changed) - 1) / (most - 1))] for i in range(most)]


def plot_tokens(plans: Sequence[MergePlan], path: Path) -> None:
    """Write a PNG of patch tokens at the entry of every layer and at the end, one line per plan.

    Raises PlotsMissing without matplotlib, OSError if the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ModuleNotFoundError:
        raise PlotsMissing("plots need matplotlib: install it, or tosa-vqa[plots]") from None
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for plan in plans:
        tokens = [count - plan.shape.num_prefix for count in plan.counts]
        curve = "" if plan.spec.schedule == "constant" else f", {plan.spec.schedule}"
        label = f"{plan.method}{curve} ({plan.keep_ratio:.3g} kept)"
        axes.step(range(len(tokens)), tokens, where="post", marker="o", markersize=3, label=label)
    axes.set(xlabel="layer (entry; the last point is the end)", ylabel="patch tokens")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    figure.savefig(path, format="png", dpi=150)


def _leaders(source: NDArray[np.int64]) -> NDArray[np.int64]:
    """Identify every token by its first patch: [P] in 0..P-1, -1 where dropped."""
    first = np.full(int(source.max()) + 2, source.size)
    np.minimum.at(first, source, np.arange(source.size))  # -1 writes into the spare last place
    return np.where(source < 0, -1, first[source])


def _group_of_pixels(groups: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    rows = np.arange(shape[0]) * groups.shape[0] // shape[0]
    columns = np.arange(shape[1]) * groups.shape[1] // shape[1]
    return groups[np.ix_(rows, columns)]


def _mean_colour(pixels: NDArray[np.uint8], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return [number of groups + 1, 3]; the last row serves group -1."""
    index = groups.ravel() + 1
    count = np.maximum(np.bincount(index), 1)
    sums = np.stack([np.bincount(index, pixels[..., channel].ravel()) for channel in range(3)], axis=1)
    return np.roll(sums / count[:, None], -1, axis=0)


def _hatched(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Darken everything and draw grey diagonals over it, so that it differs from black pixels too."""
    row, column = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    lines = (row + column) % HATCH_PX < max(1, HATCH_PX // 4)
    return np.where(lines[..., None], HATCH_GREY, pixels * 0.3)


def _edges(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the pixels of a group that touch another group."""
    edges = np.zeros(groups.shape, dtype=bool)
    vertical, horizontal = groups[1:] != groups[:-1], groups[:, 1:] != groups[:, :-1]
    edges[1:] |= vertical
    edges[:-1] |= vertical
    edges[:, 1:] |= horizontal
    edges[:, :-1] |= horizontal
    return edges


def _hues(number: int) -> NDArray[np.float64]:
    hues = [colorsys.hsv_to_rgb(group * GOLDEN_ANGLE % 1, 0.9, 1.0) for group in range(number)]
    return np.array(hues) * 255
