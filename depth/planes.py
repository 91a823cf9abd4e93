"""Evidence that numbers read as metres are inverse depth: planes of the scene are straight in them.

Across a plane 1/z is a straight line over pixels, and z bends. With d the change of z over three pixels in a
row and b its bend (z[-1] - 2 z[0] + z[1]), b z = d^2 / 2 for metres, and b = 0 for numbers that fall with
distance.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth.depth_map import DepthMap

_GRID = 96
"""Longest side in samples."""
_LINES = 2
"""Of the sampled rows and columns, every second one is looked along."""
_APART = 4
"""Samples between the three that are compared."""
_SLOPES = (0.08, 0.5)
"""Changes of slanted planes, as a share of the value: flatter ones say nothing, larger ones are edges."""
_SPREAD = 2.0
"""How far from the middle of both answers a bend may lie; beyond, it is an edge or noise."""
_LEAST_EVIDENCE = 300
_STRAIGHT = 0.25


def bends_like_inverse(depth: DepthMap) -> bool:
    """Whether slanted planes are straight in the values, rather than in their inverse."""
    bend, evidence = plane_bend(depth)
    return evidence >= _LEAST_EVIDENCE and bend < _STRAIGHT


def plane_bend(depth: DepthMap) -> tuple[float, int]:
    """Return the middle bend of slanted planes, 1 for metres and 0 for inverse depth, and its samples."""
    step = max(1, -(-max(depth.shape) // _GRID))
    values = depth.values[::step, ::step]
    valid = depth.valid[::step, ::step]
    rows, columns = np.s_[::_LINES], np.s_[:, ::_LINES]
    bends = np.concatenate([_bends(values[rows], valid[rows]), _bends(values[columns].T, valid[columns].T)])
    return (float(np.median(bends)) if bends.size else 1.0), bends.size


def _bends(values: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.floating[Any]]:
    """Return b z / (d^2 / 2) of all samples along rows that may lie on a slanted plane."""
    if values.shape[1] <= 2 * _APART:
        return np.empty(0, np.float32)
    left, here, right = values[:, : -2 * _APART], values[:, _APART:-_APART], values[:, 2 * _APART :]
    used = valid[:, : -2 * _APART] & valid[:, _APART:-_APART] & valid[:, 2 * _APART :]
    with np.errstate(all="ignore"):
        slope = (right - left) / here
        bend = (left - 2 * here + right) / here / (slope**2 / 2)
        steep = np.abs(slope)
        used &= (steep > _SLOPES[0]) & (steep < _SLOPES[1]) & (np.abs(bend - 0.5) < _SPREAD)
    return bend[used]
