"""Spoil a picture as bad light, lenses, sensors and air do; the same seed always gives the same bytes.

All arithmetic is in integers, so that the frozen splits are the same on every platform. Works on rendered
frames and on photographs of any size; lengths are of a picture 384 px wide and grow with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from service.roomqa.condition import CONDITIONS, Condition
from service.roomqa.draws import Draws
from service.roomqa.jpeg import compress

Rgb = NDArray[np.uint8]
Depth = NDArray[np.float32]

PHOTONS_AT_WHITE = (24, 8, 4)
NOISE_SIGMA = (30, 60, 90)  # of 255
MOTION_PX = (9, 17, 29)
DEFOCUS_RADIUS_PX = (3, 6, 9)
EXPOSURE_PERCENT = (120, 150, 190)
VEIL = (50, 90, 140)  # of 255, added at the source of the glare
FOG_PER_M = (0.12, 0.28, 0.55)
FOG_LIGHT = 200
JPEG_QUALITY = (20, 10, 5)
CAST_SHARE_PERCENT = (40, 70, 100)
CASTS_PERCENT = ((100, 75, 45), (45, 70, 100), (55, 100, 60), (100, 50, 100))  # warm, cold, green, magenta
DEAD_PERCENT = (2, 8, 20)

_DIRECTIONS = ((16, 0), (15, 6), (11, 11), (6, 15), (0, 16), (-6, 15), (-11, 11), (-15, 6))  # sixteenths
_FARTHEST_CM = 2000


def spoil(rgb: Rgb, condition: Condition, seed: int, depth_m: Depth | None = None) -> Rgb:
    """Return the picture [H, W, 3] as it looks under a condition; seed: any integer from 0.

    depth_m [H, W] in metres, 0 where unknown: fog needs it, nothing else reads it. Raises ValueError for
    fog without depth, or with depth of another size.
    """
    level = condition.strength - 1
    if condition.kind == "fog":
        if depth_m is None or depth_m.shape != rgb.shape[:2]:
            raise ValueError("fog needs depth in metres, of the same size as the picture")
        return _fog(rgb, depth_m, FOG_PER_M[level])
    draws = Draws(seed, CONDITIONS.index(condition.kind), condition.strength)
    return _SPOILERS[condition.kind](rgb, level, draws)


def _dark(rgb: Rgb, level: int, draws: Draws) -> Rgb:
    """Count few photons, and turn the gain up until white is white again."""
    photons = PHOTONS_AT_WHITE[level]
    return _bytes(draws.photons(photons, rgb) * 255 // photons)


def _noise(rgb: Rgb, level: int, draws: Draws) -> Rgb:
    return _bytes(rgb + draws.gaussian(rgb.shape, NOISE_SIGMA[level]))


def _motion(rgb: Rgb, level: int, draws: Draws) -> Rgb:
    """Average along a straight path in one of eight directions."""
    across, down = _DIRECTIONS[draws.below(len(_DIRECTIONS))]
    length = _scaled(MOTION_PX[level], rgb)
    steps = [
        ((i * down + 8) // 16, (i * across + 8) // 16) for i in range(-(length // 2), length - length // 2)
    ]
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((length, length), (length, length), (0, 0)), mode="edge")
    total = np.zeros(rgb.shape, np.uint32)
    for y, x in steps:
        total += padded[length + y : length + y + height, length + x : length + x + width]
    return ((total + length // 2) // length).astype(np.uint8)


def _defocus(rgb: Rgb, level: int, draws: Draws) -> Rgb:
    """Average over a disc."""
    radius = _scaled(DEFOCUS_RADIUS_PX[level], rgb)
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((radius, radius), (radius + 1, radius), (0, 0)), mode="edge")
    sums = padded.cumsum(axis=1, dtype=np.uint32)
    total, pixels = np.zeros(rgb.shape, np.uint32), 0
    for down in range(-radius, radius + 1):
        half = math.isqrt(radius * radius - down * down)
        row = sums[radius + down : radius + down + height]
        left, right = radius - half, radius + half + 1
        total += row[:, right : right + width] - row[:, left : left + width]
        pixels += 2 * half + 1
    return ((total + pixels // 2) // pixels).astype(np.uint8)


def _glare(rgb: Rgb, level: int, draws: Draws) -> Rgb:
    """Expose too long, with a bright lamp in the upper half whose light spreads in the lens."""
    height, width = rgb.shape[:2]
    y, x = draws.below(height // 2 + 1), draws.below(width)
    away = (np.arange(height)[:, None] - y) ** 2 + (np.arange(width)[None, :] - x) ** 2
    reach = _scaled(70, rgb) ** 2
    veil = VEIL[level] * reach // (reach + away)
    return _bytes(rgb.astype(np.int64) * EXPOSURE_PERCENT[level] // 100 + veil[..., None])


def _fog(rgb: Rgb, depth_m: Depth, per_metre: float) -> Rgb:
    """Fade to the light of the fog with distance; where depth is unknown, as at the farthest known."""
    known = np.isfinite(depth_m) & (depth_m > 0)
    cm = (np.where(known, depth_m, 0).clip(0, _FARTHEST_CM / 100) * 100).astype(np.int64)
    cm = np.where(known, cm, cm.max())
    shares = [round(1024 * math.exp(-per_metre * each / 100)) for each in range(_FARTHEST_CM + 1)]
    share = np.array(shares)[cm][..., None]
    return _bytes((rgb * share + FOG_LIGHT * (1024 - share) + 512) >> 10)


def _jpeg(rgb: Rgb, level: int, draws: Draws) -> Rgb:
    return compress(rgb, JPEG_QUALITY[level])


def _cast(rgb: Rgb, level: int, draws: Draws) -> Rgb:
    """Colour the light: warm, cold, green or magenta."""
    full = np.array(CASTS_PERCENT[draws.below(len(CASTS_PERCENT))])
    percent = 100 - (100 - full) * CAST_SHARE_PERCENT[level] // 100
    return _bytes(rgb * percent // 100)


def _dead(rgb: Rgb, level: int, draws: Draws) -> Rgb:
    """Let some elements of the sensor, each of one colour, always say 0 or always 255."""
    words = draws.words(rgb.shape)
    dead = words < np.uint64(DEAD_PERCENT[level] * 2**32 // 100)
    stuck = np.where(words % np.uint64(2) == 0, np.uint8(0), np.uint8(255))
    return np.where(dead, stuck, rgb)


_SPOILERS: dict[str, Callable[[Rgb, int, Draws], Rgb]] = {
    "dark": _dark,
    "noise": _noise,
    "motion": _motion,
    "defocus": _defocus,
    "glare": _glare,
    "jpeg": _jpeg,
    "cast": _cast,
    "dead": _dead,
}


def _scaled(px: int, rgb: Rgb) -> int:
    return max(1, (px * rgb.shape[1] + 192) // 384)


def _bytes(values: NDArray[np.integer]) -> Rgb:
    return values.clip(0, 255).astype(np.uint8)
