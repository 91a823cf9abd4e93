"""The meaning of the numbers in a depth file: from a preset, from the request, or assumed from their type."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from depth.errors import MAX_INVALID, DepthError
from depth.formats.raw import parse_shape
from depth.presets import KINDS, Kind, Preset, find_preset

AUTO = "auto"
MILLIMETRES, METRES = 1000.0, 1.0


@dataclass(frozen=True)
class Assumption:
    """A property that was assumed because it was not given, with a sentence about the assumption."""

    field: str
    sentence: str


@dataclass(frozen=True)
class DepthFormat:
    """How the values of a file become depth.

    `units_per_metre` is None for values without a unit; of inverse depth it is units per 1/m. `invalid` are
    values of the file that are holes, besides those that `depth_map` always masks.
    """

    kind: Kind
    units_per_metre: float | None
    invalid: tuple[float, ...] = ()
    preset: str | None = None
    assumptions: tuple[Assumption, ...] = ()


class FormatOptions(TypedDict, total=False):
    """The options of a caller about a file; all are optional.

    `preset`: a row of PRESETS, or "auto" for none. `scale`: units per metre. `kind`: metric, inverse or
    relative. `invalid`: values of the file that are holes; none given is not the same as an empty list, which
    says that 0 is no hole in 8 bits. `key`: the array of an NPZ or the channel of an OpenEXR file. `shape`:
    "WxH" of numbers without a header.
    """

    preset: str | None
    scale: float | None
    kind: str | None
    invalid: Sequence[float] | None
    key: str | None
    shape: str | None


def choose_format(
    dtype: np.dtype[np.generic],
    *,
    preset: str | None = None,
    scale: float | None = None,
    kind: str | None = None,
    invalid: Sequence[float] | None = None,
    key: str | None = None,
    shape: str | None = None,
) -> DepthFormat:
    """Decide what values of `dtype` mean; what is not given is assumed and listed in the result.

    `key` and `shape` are only checked: they matter before there are values. Raises DepthError for
    options that are impossible, or do not fit together or the type.
    """
    holes = _check_invalid(invalid or ())
    if shape is not None:
        parse_shape(shape)
    if scale is not None and not _is_above_zero(scale):
        raise DepthError("scale")
    if kind is not None and kind not in KINDS:
        raise DepthError("kind")
    if preset is not None and preset != AUTO:
        if scale is not None or kind is not None:
            raise DepthError("unit_twice")
        return _from_preset(_known(preset), dtype, holes)
    if kind is None and scale is None:
        return _assume(dtype, holes)
    return _from_words(kind, scale, dtype, holes)


def _from_preset(preset: Preset, dtype: np.dtype[np.generic], holes: tuple[float, ...]) -> DepthFormat:
    if dtype.itemsize == 1 and preset.file != "8-bit":
        raise DepthError("preset_eight_bit")
    return DepthFormat(preset.kind, preset.units_per_metre, preset.invalid + holes, preset.name)


def _from_words(
    kind: str | None, scale: float | None, dtype: np.dtype[np.generic], holes: tuple[float, ...]
) -> DepthFormat:
    if kind == "relative":
        if scale is not None:
            raise DepthError("scale_of_relative")
        return DepthFormat("relative", None, holes)
    if kind == "inverse":
        return DepthFormat("inverse", scale, holes)
    if scale is not None:
        return DepthFormat("metric", float(scale), holes)
    if dtype.itemsize == 1:
        raise DepthError("metric_eight_bit")
    units, assumption = _assume_unit(dtype)
    return DepthFormat("metric", units, holes, assumptions=(assumption,))


def _assume(dtype: np.dtype[np.generic], holes: tuple[float, ...]) -> DepthFormat:
    if dtype.itemsize == 1:
        sentence = "8 bits were taken as relative depth: their order counts, they have no unit."
        return DepthFormat("relative", None, holes, assumptions=(Assumption("kind", sentence),))
    units, unit = _assume_unit(dtype)
    kind = Assumption("kind", "The values were taken as metric depth, which grows with distance.")
    return DepthFormat("metric", units, holes, assumptions=(kind, unit))


def _assume_unit(dtype: np.dtype[np.generic]) -> tuple[float, Assumption]:
    if dtype.kind == "f":
        return METRES, Assumption("scale", "Floating-point values were taken as metres.")
    return MILLIMETRES, Assumption("scale", "Integers were taken as millimetres.")


def _known(name: str) -> Preset:
    try:
        preset = find_preset(name)
    except ValueError:
        raise DepthError("realsense_scale") from None
    if preset is None:
        raise DepthError("preset")
    return preset


def _check_invalid(invalid: Sequence[float]) -> tuple[float, ...]:
    if len(invalid) > MAX_INVALID or any(type(value) not in (int, float) for value in invalid):
        raise DepthError("invalid")
    try:
        holes = [float(value) for value in invalid]
    except OverflowError:
        raise DepthError("invalid") from None
    return tuple(hole for hole in holes if math.isfinite(hole))  # the others are always holes


def _is_above_zero(scale: float) -> bool:
    return math.isfinite(scale) and scale > 0
