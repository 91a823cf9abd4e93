"""Encode, decode, compare: numbers in any container come back exactly, or are refused for a good reason.

The oracle is plain float64 arithmetic on what was written; it shares nothing with the decoder.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from depth import DepthError, DepthMap
from tests.depth.files import decode_depth
from tests.depth.tiffs import DEFLATE, LZW, NONE, OLD_DEFLATE, PACKBITS, tiff

DTYPES = {
    "png": ("u1", "u2"),
    "tiff": ("u1", "u2", "f2", "f4", "f8"),
    "npy": ("u1", "u2", "i2", "i4", "u4", "i8", "f2", "f4", "f8"),
}
UNITS = {
    "scannet": 1000.0, "tum": 5000.0, "matterport": 4000.0, "kitti": 256.0, "openeqa-hm3d": 6553.5,
    "habitat": 0.1, "7scenes": 1000.0, "vkitti": 100.0, "realsense:0.001": 1000.0,
}  # fmt: skip
IMPLAUSIBLE = (
    *("looks_like_metres", "looks_like_millimetres", "looks_like_centimetres", "looks_like_either"),
    "implausible",
)
LARGEST_IS_A_HOLE = ("7scenes", "vkitti")
SPECIALS = (0.0, -0.0, -1.0, 1.0, 0.5, 255.0, 1000.0, 65_535.0, 1e9, 1e10, np.nan, np.inf, -np.inf, 1e-12)


@dataclass(frozen=True)
class Case:
    """Hold numbers [H, W], how they are written and what is said about them."""

    values: NDArray[np.generic]
    container: str
    layout: dict[str, Any]
    options: dict[str, Any]

    def encode(self) -> bytes:
        """Return the file."""
        if self.container == "tiff":
            return tiff(self.values, **self.layout)
        buffer = io.BytesIO()
        if self.container == "png":
            Image.fromarray(self.values).save(buffer, "PNG")
        else:
            order, fortran = self.layout["order"], self.layout["fortran"]
            array = self.values.astype(self.values.dtype.newbyteorder(order))
            np.save(buffer, np.asfortranarray(array) if fortran else array)
        return buffer.getvalue()


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a file and options that belong together."""
    container = draw(st.sampled_from(sorted(DTYPES)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES[container])))
    elements = st.sampled_from(_specials(dtype)) | hnp.from_dtype(dtype)
    values = draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=elements))
    return Case(values, container, draw(_layouts(container, dtype)), draw(_options(dtype, values)))


def check(case: Case) -> None:
    """Decode and compare. Raises AssertionError."""
    try:
        compare(case, decode_depth(case.encode(), **case.options))
    except DepthError as error:
        excuse(case, error.reason)


def excuse(case: Case, reason: str) -> None:
    """Check that there is reason to refuse a file. Raises AssertionError."""
    assert reason in _excuses(case, *_expected(case)), reason


def compare(case: Case, depth: DepthMap) -> None:
    """Compare a decoded map with what was written. Raises AssertionError."""
    expected, valid = _expected(case)
    assert not _must_refuse(expected, valid)
    if not np.array_equal(depth.valid, valid) and _may_decide(case):  # 0 was taken as a hole
        valid = valid & (expected > 0)
    np.testing.assert_array_equal(depth.valid, valid)
    assert (depth.values[~valid] == 0).all() and depth.values.dtype == np.float32
    if _is_guessed_picture(case):  # either way round
        turned = np.where(valid, 255 - expected, 0)
        assert np.array_equal(depth.values, expected) or np.array_equal(depth.values, turned)
    else:
        np.testing.assert_array_equal(depth.values, expected)


def _specials(dtype: np.dtype[Any]) -> list[Any]:
    """Return those of SPECIALS that the type can hold."""
    with np.errstate(all="ignore"):
        if dtype.kind == "f":
            return [dtype.type(value) for value in SPECIALS]
        limits = np.iinfo(dtype.name)
        return [dtype.type(value) for value in SPECIALS if limits.min <= value <= limits.max]


def _expected(case: Case) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    options, preset = case.options, case.options.get("preset")
    kind = options.get("kind") or ("relative" if _is_guessed_picture(case) else "metric")
    units = UNITS[preset] if preset else options.get("scale")
    if units is None and kind == "metric":
        units = 1.0 if case.values.dtype.kind == "f" else 1000.0
    wide = case.values.astype(np.float64)
    with np.errstate(all="ignore"):
        scaled = (wide / (units or 1.0)).astype(np.float32)
        valid = np.isfinite(scaled) & (scaled >= 0) & (scaled < 1e9)
        if kind == "metric":
            valid &= scaled > 1e-9
    holes = [*options.get("invalid", ()), *([65_535.0] if preset in LARGEST_IS_A_HOLE else [])]
    for hole in holes:
        valid &= ~(wide == hole)
    return np.where(valid, scaled, 0).astype(np.float32), valid


def _may_decide(case: Case) -> bool:
    """Say whether the pixels decide what 0 means: in 8 bits that are not metric, with no holes named."""
    options = case.options
    is_metric = options.get("kind") == "metric" or ("scale" in options and options.get("kind") is None)
    return case.values.dtype.itemsize == 1 and not is_metric and "invalid" not in options


def _is_guessed_picture(case: Case) -> bool:
    return case.values.dtype.itemsize == 1 and not {"preset", "kind", "scale"} & set(case.options)


def _must_refuse(expected: NDArray[np.float32], valid: NDArray[np.bool_]) -> bool:
    return len(np.unique(expected[valid])) < 2


def _excuses(case: Case, expected: NDArray[np.float32], valid: NDArray[np.bool_]) -> set[str]:
    """Return the reasons for which this file may be refused."""
    if not valid.any():
        return {"all_invalid"}
    clipped = {"saturated"} if _is_clipped(case.values[valid]) else set[str]()
    if _must_refuse(expected, valid):
        return {"constant"} | clipped
    seen = expected[valid]
    if case.options.get("kind", "metric") == "metric" and (seen.max() < 0.01 or np.median(seen) > 100):
        return set(IMPLAUSIBLE) | clipped
    return clipped


def _is_clipped(seen: NDArray[np.generic]) -> bool:
    """Say whether nearly all of 8 bits sits at the ends, some of it at the top."""
    if seen.dtype.itemsize > 1:
        return False
    numbers = seen.astype(int)
    return bool((numbers >= 251).any() and ((numbers >= 251) | (numbers <= 4)).mean() >= 0.9)


def _layouts(container: str, dtype: np.dtype[np.generic]) -> st.SearchStrategy[dict[str, Any]]:
    order = st.sampled_from("<>")
    if container == "png":
        return st.just({})
    if container == "npy":
        return st.fixed_dictionaries({"order": order, "fortran": st.booleans()})
    plain = st.fixed_dictionaries({"order": order, "compression": st.sampled_from((NONE, PACKBITS))})
    predictors = (1, 2, 3) if dtype.kind == "f" else (1, 2)
    packed = st.fixed_dictionaries(
        {
            "order": order,
            "compression": st.sampled_from((LZW, DEFLATE, OLD_DEFLATE)),
            "predictor": st.sampled_from(predictors),
        }
    )
    blocks = st.sampled_from(
        ({}, {"rows_per_strip": 1}, {"rows_per_strip": 3}, {"tile": (16, 16)}, {"tile": (16, 32)})
    )
    return st.tuples(plain | packed, blocks).map(lambda both: {**both[0], **both[1]})


def _options(dtype: np.dtype[np.generic], values: NDArray[np.generic]) -> st.SearchStrategy[dict[str, Any]]:
    scale = st.sampled_from((1.0, 100.0, 1000.0, 256.0, 6553.5, 0.1, 1 / 3))
    said: list[st.SearchStrategy[dict[str, Any]]] = [
        st.just({}),
        st.just({"kind": "relative"}),
        st.just({"kind": "inverse"}),
        st.builds(dict, scale=scale),
        st.builds(dict, scale=scale, kind=st.sampled_from(("metric", "inverse"))),
    ]
    if dtype.itemsize > 1:
        said += [st.just({"kind": "metric"}), st.builds(dict, preset=st.sampled_from(sorted(UNITS)))]
    own = st.sampled_from([float(value) for value in values.ravel()])  # numbers that are in the file
    invalid = st.lists(own | st.just(-1.0), min_size=1, max_size=3).map(tuple)
    return st.tuples(st.one_of(said), st.just({}) | st.builds(dict, invalid=invalid)).map(
        lambda both: {**both[0], **both[1]}
    )
