"""What depth cameras make of exact depth: an active one, which brings its own light, and a stereo pair.

The active one is of the structured-light kind: noise, holes, a limited range, the same in any light. Axial
noise after Nguyen, Izadi and Lovell (3DIMPVT 2012): sigma = 0.0012 + 0.0019 (z - 0.4)^2 metres.
The stereo pair matches what the picture shows: it fails on blank walls, and in the dark.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FARTHEST_M = 8.0
EDGE_STEP = 0.05  # a jump of this share of the distance casts a shadow in the pattern
EDGE_HOLES = 0.7  # share of pixels beside such a jump that are lost
BLOBS, BLOB_PX = 12, 0.06  # reflections and dark surfaces: how many, and how wide at most
STEREO_PX_M = 25.0  # focal length times baseline, of a picture 384 px wide: 250 px and 10 cm
MATCHED_PX = 0.25  # error of a good match
BLOCK_PX = 21  # side of the matched blocks
LEAST_CLEAR = 0.7  # of contrast over noise: by chance a blank block of pure noise has 0.4
LEAST_CONTRAST = 1.0  # in grey values of 255: what a match needs without noise


def measured_depth(
    camera: str, depth_m: NDArray[np.float32], rgb: NDArray[np.uint8], seed: int
) -> NDArray[np.float32]:
    """Return depth [H, W] in metres as one of CAMERAS measures it, the picture [H, W, 3] being as it is."""
    if camera == "exact":
        return depth_m
    if camera == "active":
        return sensed_depth(depth_m, seed)
    assert camera == "stereo", f"unknown camera {camera}"
    return stereo_depth(depth_m, rgb, seed)


def sensed_depth(depth_m: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return depth [H, W] in metres as an active camera reports it; 0 is a hole, a seed repeats."""
    rng = np.random.default_rng(seed)
    sigma = 0.0012 + 0.0019 * (depth_m - 0.4) ** 2
    noisy = np.round((depth_m + rng.normal(size=depth_m.shape) * sigma) * 1000) / 1000
    lost = (depth_m > FARTHEST_M) | _shadows(depth_m, rng) | _blobs(depth_m.shape, rng)
    return np.where(lost, 0, noisy).astype(np.float32)


def stereo_depth(depth_m: NDArray[np.float32], rgb: NDArray[np.uint8], seed: int) -> NDArray[np.float32]:
    """Return depth [H, W] in metres as a stereo pair measures it from a picture [H, W, 3]; 0 is a hole.

    A block is matched where its contrast along the rows stands out of its noise; the less it does, the
    larger the error of its disparity. Pixels beside a jump of depth are often hidden from one camera.
    """
    rng = np.random.default_rng(seed)
    clear = _clarity(rgb.mean(axis=2))
    scale = STEREO_PX_M * depth_m.shape[1] / 384
    disparity = scale / np.maximum(depth_m, 0.05)
    error = rng.normal(size=depth_m.shape) * MATCHED_PX / np.clip(clear, 0.25, 1)
    measured = np.round(scale / np.maximum(disparity + error, 0.1) * 1000) / 1000
    lost = (clear < LEAST_CLEAR) | (measured > FARTHEST_M) | _shadows(depth_m, rng)
    return np.where(lost, 0, measured).astype(np.float32)


def _clarity(grey: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return contrast along the rows over noise, of the block round every pixel [H, W].

    Noise as Immerkaer (CVIU 1996) estimates it: what is left of two second differences, across and down.
    """
    padded = np.pad(grey, 1, mode="edge")
    twice = np.diff(np.diff(padded, n=2, axis=0), n=2, axis=1)
    noise_power = np.maximum(_block_mean(twice**2, 2 * BLOCK_PX + 1), 0) / 36  # 0: rounding of the sums
    step_power = _block_mean(np.diff(grey, axis=1, append=grey[:, -1:]) ** 2, BLOCK_PX)
    contrast = np.sqrt(np.maximum(step_power - 2 * noise_power, 0))
    return contrast / (LEAST_CONTRAST + np.sqrt(noise_power))


def _block_mean(values: NDArray[np.floating], side: int) -> NDArray[np.floating]:
    half = side // 2
    sums = np.pad(values, ((half + 1, half), (half + 1, half)), mode="edge").cumsum(0).cumsum(1)
    return (sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]) / side**2


def _shadows(depth_m: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Lose most pixels within three of a jump."""
    jumps = _jumps(depth_m) | _jumps(depth_m.T).T
    near = jumps.copy()
    for shift in (-3, -2, -1, 1, 2, 3):
        near |= np.roll(jumps, shift, axis=0) | np.roll(jumps, shift, axis=1)
    return near & (rng.random(depth_m.shape) < EDGE_HOLES)


def _jumps(depth_m: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark both pixels of every jump between rows."""
    step = np.abs(np.diff(depth_m, axis=0)) > EDGE_STEP * np.minimum(depth_m[1:], depth_m[:-1])
    jumps = np.zeros(depth_m.shape, dtype=bool)
    jumps[1:] |= step
    jumps[:-1] |= step
    return jumps


def _blobs(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    lost = np.zeros(shape, dtype=bool)
    for _ in range(BLOBS):
        y, x = rng.random(2) * shape
        ry, rx = (rng.uniform(0.2, 1.0, 2) * BLOB_PX * np.array(shape)) + 1
        lost |= ((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 < 1
    return lost
