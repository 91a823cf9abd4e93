"""Evidence that a depth map and an image show the same view: edges of depth lie on edges of the image.

Edges of both are compared on a small square grid, as they are, and with the image turned, mirrored, shifted
or of another field of view. There is a doubt only where one of these fits clearly, and clearly better. Where
they fit beyond doubt as they are, nothing else is tried.
"""

from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from depth.codes import robust_range
from depth.depth_map import DepthMap
from depth.notes import note
from depth.report import DepthReport

GRID = 64
_ZOOMS = (1.25,)
"""Fields of view, against each other: those of the two cameras of a RealSense differ by 1.2 to 1.3."""
_FEWEST = 0.3
"""Share of samples that must be valid: between scattered readings there are no edges."""
_JUMPS = (0.05, 0.35)
"""Steps of log depth between samples where an edge begins, and where it is as strong as it gets."""
_COLOUR_JUMP = 60.0
_NEIGHBOURHOOD = 4
"""Samples around one over which edges are evened out: where they are counts, and not how many there are."""
_NEAR, _FAR = 1, 12
"""Shifts in samples that count as none, and the largest that are tried; those between are neither."""
_CLEAR, _BETTER = 4.5, 2.0
"""Standard deviations of all shifts: a fit by chance stays below the first."""
_BEYOND_DOUBT = _CLEAR + _BETTER
_OF_DEVIATION = 0.6745
"""The median of the absolute values of a normal distribution, in its standard deviations."""
_LEAST = 0.8
"""Of the plain standard deviation, which counts where few edges are everything."""
_Edges = NDArray[np.floating[Any]]


def note_alignment(report: DepthReport, depth: DepthMap, image: Image.Image) -> DepthReport:
    """Return the report, with a note if the edges of the depth do not lie on those of the RGB image."""
    if not looks_unaligned(depth, image):
        return report
    return replace(report, notes=(*report.notes, note("maybe_unaligned")))


def looks_unaligned(depth: DepthMap, image: Image.Image) -> bool:
    """Whether edges fit clearly better where the RGB image is turned, mirrored, shifted or zoomed."""
    aligned, other = fits(depth, image)
    return other > _CLEAR and other > aligned + _BETTER


def fits(depth: DepthMap, image: Image.Image) -> tuple[float, float]:
    """Return how well edges fit as they are, and at best otherwise, in deviations; 0 without edges.

    The second is 0 where they fit beyond doubt as they are.
    """
    of_depth = _depth_edges(depth, 1.0)
    if of_depth is None:
        return 0.0, 0.0
    of_image = _image_edges(image, 1.0)
    shifted = _correlations(of_depth, of_image)
    deviation = max(float(np.median(np.abs(shifted))) / _OF_DEVIATION, _LEAST * float(shifted.std()))
    if deviation == 0:
        return 0.0, 0.0
    aligned = float(shifted[_window(_NEAR)].max()) / deviation
    if aligned > _BEYOND_DOUBT:
        return aligned, 0.0
    shifted[_window(2 * _NEAR)] = -1
    turned = np.stack([np.rot90(one, k) for one in (of_image, of_image[:, ::-1]) for k in range(4)][1:])
    others = [float(shifted[_window(_FAR)].max()), _best(of_depth, turned, _NEAR)]
    for zoom in _ZOOMS:
        others.append(_best(of_depth, _image_edges(image, zoom)[None], 2 * _NEAR))
        nearer = _depth_edges(depth, zoom)
        if nearer is not None:
            others.append(_best(nearer, of_image[None], 2 * _NEAR))
    return aligned, max(others) / deviation


def _depth_edges(depth: DepthMap, zoom: float) -> _Edges | None:
    """Return edges of the middle 1 / zoom of a map, None where too little is valid."""
    at = np.ix_(*(_samples(side, zoom) for side in depth.shape))
    valid = depth.valid[at]
    if np.count_nonzero(valid) < _FEWEST * valid.size:
        return None
    values = depth.values[at]
    low, high = robust_range(values[valid])
    if high <= low:
        return None
    if depth.kind == "relative":
        scaled = (values - low) / (high - low)
    else:
        scaled = np.log(values.clip(max(low, 0.01 * high), high))
    steps = _steps(scaled[None].astype(np.float32), valid)
    return _sharpened(steps.clip(*_JUMPS) - _JUMPS[0])


def _image_edges(image: Image.Image, zoom: float) -> _Edges:
    """Return edges of the middle 1 / zoom of an image: the largest step of its three colours."""
    margin = (1 - 1 / zoom) / 2
    box = (
        margin * image.width,
        margin * image.height,
        (1 - margin) * image.width,
        (1 - margin) * image.height,
    )
    small = image.resize((2 * GRID, 2 * GRID), Image.Resampling.NEAREST, box=box)
    fine = np.asarray(small).transpose(2, 0, 1).astype(np.int16)
    pairs = fine[:, ::2] + fine[:, 1::2]
    pixels = (pairs[:, :, ::2] + pairs[:, :, 1::2]).astype(np.float32) / 4
    return _sharpened(np.minimum(_steps(pixels, None), _COLOUR_JUMP))


def _samples(side: int, zoom: float) -> NDArray[np.intp]:
    """Return the indices of GRID samples in the middle 1 / zoom of a side."""
    places = ((np.arange(GRID) + 0.5) / GRID - 0.5) / zoom + 0.5
    return (places * side).astype(np.intp)


def _steps(values: _Edges, valid: NDArray[np.bool_] | None) -> _Edges:
    """Sum the steps of [C, H, W] values to the four neighbours, each the largest of its channels."""
    edges = np.zeros(values.shape[1:], np.float32)
    for one, other in ((np.s_[1:, :], np.s_[:-1, :]), (np.s_[:, 1:], np.s_[:, :-1])):
        step = reduce(np.maximum, np.abs(values[:, *one] - values[:, *other]))
        if valid is not None:
            step *= valid[one] & valid[other]
        edges[one] += step
        edges[other] += step
    return edges


def _sharpened(edges: _Edges) -> _Edges:
    """Subtract the mean of the neighbourhood, and bring to length 1."""
    size = 2 * _NEIGHBOURHOOD + 1
    padded = np.pad(
        edges, ((_NEIGHBOURHOOD + 1, _NEIGHBOURHOOD), (_NEIGHBOURHOOD + 1, _NEIGHBOURHOOD)), mode="reflect"
    )
    sums = padded.cumsum(axis=0).cumsum(axis=1)
    mean = (sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]) / size**2
    sharp = edges - mean
    length = float(np.sqrt((sharp * sharp).sum()))
    return sharp / length if length > 0 else sharp


def _correlations(one: _Edges, other: _Edges) -> _Edges:
    """Return [H, W]: how edges correlate with others at every shift, which wraps around."""
    spectrum = np.fft.rfft2(other) * np.conj(np.fft.rfft2(one))
    return np.fft.irfft2(spectrum, s=one.shape)


def _window(shift: int) -> tuple[NDArray[np.intp], ...]:
    """Return the indices of all shifts up to so many samples in both directions."""
    near = np.arange(-shift, shift + 1)
    return np.ix_(near, near)


def _best(one: _Edges, others: _Edges, shift: int) -> float:
    """Return the best correlation of edges with others [n, H, W], shifted by up to so many samples."""
    wrapped = np.pad(one, shift, mode="wrap")
    moved = np.lib.stride_tricks.sliding_window_view(wrapped, one.shape)
    return float((moved.reshape(-1, one.size) @ others.reshape(len(others), -1).T).max())
