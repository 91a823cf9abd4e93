"""Some of the cases of tests/fuzz/exact.py, and decoders that it catches."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from depth import DepthMap
from tests.depth.files import decode_depth
from tests.fuzz.exact import Case, cases, check, compare, excuse

GOOD = Case(np.array([[0, 700, 1234], [65535, 255, 256]], "u2"), "png", {}, {"scale": 1000.0})


@settings(max_examples=200, deadline=None)
@given(cases())
def test_encode_decode_compare(case: Case) -> None:
    check(case)


def _saturated(depth: DepthMap) -> DepthMap:
    return replace(depth, values=np.minimum(depth.values, np.float32(0.255)))


def _off_by_one_rounding(depth: DepthMap) -> DepthMap:
    return replace(depth, values=np.nextafter(depth.values, np.float32(9)) * depth.valid)


def _hole_kept(depth: DepthMap) -> DepthMap:
    return replace(depth, valid=np.ones_like(depth.valid))


def _pixel_lost(depth: DepthMap) -> DepthMap:
    valid = depth.valid.copy()
    valid[0, 1] = False
    return replace(depth, valid=valid, values=depth.values * valid)


@pytest.mark.parametrize("broken", [_saturated, _off_by_one_rounding, _hole_kept, _pixel_lost])
def test_a_broken_decoder_is_caught(broken: Callable[[DepthMap], DepthMap]) -> None:
    depth = decode_depth(GOOD.encode(), **GOOD.options)
    compare(GOOD, depth)
    with pytest.raises(AssertionError):
        compare(GOOD, broken(depth))


def test_a_refusal_without_a_reason_is_caught() -> None:
    with pytest.raises(AssertionError):
        excuse(GOOD, "all_invalid")
