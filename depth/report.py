"""The report on how a depth file was read, in plain values that can be returned to the sender."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from depth.depth_format import Assumption, DepthFormat
from depth.depth_map import DepthMap
from depth.errors import DepthError
from depth.notes import Note
from depth.presets import Kind

MEDIAN_SAMPLE = 1 << 14


@dataclass(frozen=True)
class DepthReport:
    """How a depth file was read.

    `scale` is units per metre (of inverse depth, per 1/m), None without a unit. `nearest`, `farthest` and
    `median` are of valid pixels, in `unit` or else in the file's own numbers; where those fall with distance,
    as of inverse depth or of 8 bits whose bright end is near, the nearest is the largest number. The median
    of a large map is that of every n-th valid pixel. `assumptions` name what was not given: kind, scale,
    polarity, dtype. `notes` are doubts that are no reason to refuse, and what 0 was taken for.
    """

    format: str
    dtype: str
    height: int
    width: int
    preset: str | None
    kind: Kind
    unit: str | None
    scale: float | None
    nearest: float
    farthest: float
    median: float
    valid_ratio: float
    assumptions: tuple[Assumption, ...]
    notes: tuple[Note, ...] = ()

    @property
    def guessed(self) -> tuple[str, ...]:
        """Return the names of what was guessed."""
        return tuple(assumption.field for assumption in self.assumptions)


def make_report(
    container: str,
    dtype: np.dtype[np.generic],
    depth: DepthMap,
    reading: DepthFormat,
    assumptions: tuple[Assumption, ...],
    turned_from: int | None = None,
) -> DepthReport:
    """Describe a decoded map that has at least one valid pixel.

    turned_from: what the numbers of the file were subtracted from, None if they were not.
    """
    values = depth.valid_values
    nearest, farthest = _ends(values, depth.kind)
    median = float(np.median(values[:: -(-values.size // MEDIAN_SAMPLE)]))
    if turned_from is not None:
        nearest, farthest, median = (turned_from - value for value in (nearest, farthest, median))
    return DepthReport(
        format=container,
        dtype=dtype.name,
        height=depth.shape[0],
        width=depth.shape[1],
        preset=reading.preset,
        kind=depth.kind,
        unit=depth.unit,
        scale=reading.units_per_metre,
        nearest=nearest,
        farthest=farthest,
        median=median,
        valid_ratio=depth.valid_ratio,
        assumptions=assumptions,
    )


def nearest_and_farthest(depth: DepthMap) -> tuple[float, float]:
    """Return both ends over valid pixels, at least one; of inverse depth the larger number is nearer."""
    return _ends(depth.valid_values, depth.kind)


def _ends(values: NDArray[np.float32], kind: Kind) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (high, low) if kind == "inverse" else (low, high)


NEAREST_M = 0.01
"""All pixels nearer than 1 cm, closer than any depth camera measures: metres read as millimetres."""
FARTHEST_MEDIAN_M = 1000.0
"""Half of the pixels beyond 1 km, although the unit was given: beyond the range of any depth sensor."""
FARTHEST_GUESSED_MEDIAN_M = 100.0
"""The same bound in metres if the unit was guessed: a table in millimetres starts at 300."""
_TOO_FAR = (100.0, 65_535.0)
_SURELY_CENTIMETRES, _SURELY_MILLIMETRES = 300.0, 2000.0
"""Medians of numbers: half of a view nearer than 0.3 m or farther than 20 m is no room and no street."""
_LIKE_METRES = (0.1, 100.0)


def check_sanity(report: DepthReport) -> None:
    """Check that a map is not constant, and that metric depth is plausible for a view.

    Raises DepthError: constant, looks_like_millimetres, looks_like_centimetres, looks_like_either,
    looks_like_metres or implausible.
    """
    if report.nearest == report.farthest:
        raise DepthError("constant")
    if report.kind != "metric" or report.scale is None:
        return
    limit = FARTHEST_GUESSED_MEDIAN_M if "scale" in report.guessed else FARTHEST_MEDIAN_M
    number = report.median * report.scale
    if report.median > limit:
        raise DepthError(_smaller_unit(number) if _in(number, _TOO_FAR) else "implausible")
    if np.float32(report.farthest) < np.float32(NEAREST_M):  # 10 mm in float32 is not below 10 mm
        raise DepthError("looks_like_metres" if _in(number, _LIKE_METRES) else "implausible")


def _smaller_unit(median: float) -> str:
    """Name the unit in which half of the view lies within a few metres."""
    if median < _SURELY_CENTIMETRES:
        return "looks_like_centimetres"
    return "looks_like_millimetres" if median > _SURELY_MILLIMETRES else "looks_like_either"


def _in(number: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= number <= limits[1]
