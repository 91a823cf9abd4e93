"""Ray intersection with solids and furniture: first hit and surface normal.

Local frame of a shape: the origin at the middle of its base, y up; rays [3, n] start at `origin`.
Every function returns `t` [n] (inf where the ray misses) and the normals [3, n] at the hits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from service.roomqa.scene import DOOR_THICKNESS_M

Array = NDArray[np.floating]
Hit = tuple[Array, Array]
INF = np.float32(np.inf)


def _slabs(origin: Array, rays: Array, low: list[float], high: list[float]) -> Hit:
    """First hit with the box between `low` and `high`."""
    with np.errstate(divide="ignore"):
        inverse = 1 / rays
    near = (np.where(inverse > 0, _column(low), _column(high)) - origin[:, None]) * inverse
    far = (np.where(inverse > 0, _column(high), _column(low)) - origin[:, None]) * inverse
    axis = near.argmax(0)
    t = near.max(0)
    normal = np.zeros_like(rays)
    picked = np.arange(rays.shape[1])
    normal[axis, picked] = -np.sign(rays[axis, picked])
    return np.where((t <= far.min(0)) & (t > 0), t, INF), normal


def _column(values: list[float]) -> Array:
    return np.array(values, np.float32)[:, None]


def _roots(a: Array, b: Array, c: float | Array) -> tuple[Array, Array]:
    """Roots of a t^2 + 2 b t + c, (inf, -inf) where there are none; a > 0."""
    disc = b * b - a * c
    root = np.sqrt(np.maximum(disc, 0))
    hit = disc > 0
    return np.where(hit, (-b - root) / a, INF), np.where(hit, (-b + root) / a, -INF)


def cube(origin: Array, rays: Array, width: float, height: float) -> Hit:
    return _slabs(origin, rays, [-width / 2, 0, -width / 2], [width / 2, height, width / 2])


def ball(origin: Array, rays: Array, width: float, height: float) -> Hit:
    return _sphere(origin, rays, height / 2, width / 2)


def _sphere(origin: Array, rays: Array, middle: float, radius: float) -> Hit:
    start = origin - np.array([0, middle, 0], np.float32)
    a = (rays * rays).sum(0)
    t, _ = _roots(a, start @ rays, float(start @ start) - radius**2)
    hit = np.where(np.isfinite(t), t, 0)
    return np.where(t > 0, t, INF), (start[:, None] + rays * hit) / np.float32(radius)


def cylinder(origin: Array, rays: Array, width: float, height: float) -> Hit:
    x, y, z = origin
    a = rays[0] ** 2 + rays[2] ** 2
    near, far = _roots(a, x * rays[0] + z * rays[2], float(x * x + z * z) - width**2 / 4)
    with np.errstate(divide="ignore"):
        low, high = -y / rays[1], (height - y) / rays[1]
    cap_near, cap_far = np.minimum(low, high), np.maximum(low, high)
    t = np.maximum(near, cap_near)
    ok = (t < np.minimum(far, cap_far)) & (t > 0)
    on_cap = cap_near > near
    hit = np.where(ok, t, 0)
    side = np.stack([x + rays[0] * hit, np.zeros_like(hit), z + rays[2] * hit]) * np.float32(2 / width)
    cap = np.stack([np.zeros_like(hit), -np.sign(rays[1]), np.zeros_like(hit)])
    return np.where(ok, t, INF), np.where(on_cap, cap, side)


def cone(origin: Array, rays: Array, width: float, height: float) -> Hit:
    slope = np.float32(width / 2 / height)  # rays of this camera are always flatter than the cone, so a > 0
    x, y, z = origin[0], height - origin[1], origin[2]
    a = rays[0] ** 2 + rays[2] ** 2 - (slope * rays[1]) ** 2
    b = x * rays[0] + z * rays[2] + slope**2 * y * rays[1]
    near, far = _roots(a, b, float(x * x + z * z - (slope * y) ** 2))
    with np.errstate(divide="ignore"):
        base, tip = -origin[1] / rays[1], y / rays[1]
    cap_near, cap_far = np.minimum(base, tip), np.maximum(base, tip)
    t = np.maximum(near, cap_near)
    ok = (t < np.minimum(far, cap_far)) & (t > 0)
    hit = np.where(ok, t, 0)
    px, pz = x + rays[0] * hit, z + rays[2] * hit
    length = np.sqrt(px * px + pz * pz) + np.float32(1e-6)
    steep = np.float32(1 / np.sqrt(1 + slope**2))
    side = np.stack([px / length * steep, np.full_like(hit, slope * steep), pz / length * steep])
    cap = np.stack([np.zeros_like(hit), -np.ones_like(hit), np.zeros_like(hit)])
    return np.where(ok, t, INF), np.where(cap_near > near, cap, side)


def pyramid(origin: Array, rays: Array, width: float, height: float) -> Hit:
    """Four sloping planes and the base, clipped one after the other."""
    half = width / 2
    length = np.hypot(height, half)
    sides = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32) * np.float32(height / length)
    up = np.full(4, half / length, np.float32)
    planes = np.stack([sides[:, 0], up, sides[:, 1]], 1)
    planes = np.concatenate([planes, np.array([[0, -1, 0]], np.float32)])
    offsets = np.append(up * np.float32(height), 0).astype(np.float32)
    speed = planes @ rays
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = (offsets - planes @ origin)[:, None] / speed
    entering = np.where(speed < 0, cross, -INF)
    leaving = np.where(speed > 0, cross, INF)
    t = entering.max(0)
    normal = planes[entering.argmax(0)].T
    return np.where((t < leaving.min(0)) & (t > 0), t, INF), normal


def capsule(origin: Array, rays: Array, width: float, height: float) -> Hit:
    """A cylinder between two half balls."""
    radius = width / 2
    t, normal = cylinder(origin - np.array([0, radius, 0], np.float32), rays, width, height - width)
    for middle in (radius, height - radius):
        t_end, normal_end = _sphere(origin, rays, middle, radius)
        closer = t_end < t
        t, normal = np.where(closer, t_end, t), np.where(closer, normal_end, normal)
    return t, normal


Box = tuple[list[float], list[float]]  # low and high corner


def _nearest(hits: Iterable[Hit]) -> Hit:
    """First hit among several parts."""
    first, *others = hits
    t, normal = first
    for other, its_normal in others:
        closer = other < t
        t, normal = np.where(closer, other, t), np.where(closer, its_normal, normal)
    return t, normal


def _boxes(origin: Array, rays: Array, boxes: Iterable[Box]) -> Hit:
    return _nearest(_slabs(origin, rays, low, high) for low, high in boxes)


def _legs(half: float, thickness: float, height: float) -> list[Box]:
    """Four legs in the corners of a square."""
    inner = half - thickness
    corners = [(x, z) for x in (-half, inner) for z in (-half, inner)]
    return [([x, 0, z], [x + thickness, height, z + thickness]) for x, z in corners]


def table(origin: Array, rays: Array, width: float, height: float) -> Hit:
    half = width / 2
    top = ([-half, 0.88 * height, -half], [half, height, half])
    return _boxes(origin, rays, [top, *_legs(half, 0.1 * width, 0.88 * height)])


def chair(origin: Array, rays: Array, width: float, height: float) -> Hit:
    half, seat = width / 2, 0.5 * height
    parts = [
        ([-half, seat - 0.12 * width, -half], [half, seat, half]),
        ([-half, seat, half - 0.14 * width], [half, height, half]),
    ]
    return _boxes(origin, rays, [*parts, *_legs(half, 0.14 * width, seat)])


def sofa(origin: Array, rays: Array, width: float, height: float) -> Hit:
    half, arm = width / 2, 0.16 * width
    parts = [
        ([-half, 0, -half], [half, 0.5 * height, half]),
        ([-half, 0, half - 0.3 * width], [half, height, half]),
        ([-half, 0, -half], [arm - half, 0.75 * height, half]),
        ([half - arm, 0, -half], [half, 0.75 * height, half]),
    ]
    return _boxes(origin, rays, parts)


def shelf(origin: Array, rays: Array, width: float, height: float) -> Hit:
    """Two sides and four boards, open at the front and the back."""
    half, thick = width / 2, 0.08 * width
    boards = [
        ([-half, y, -half], [half, y + thick, half]) for y in np.linspace(0, height - thick, 4).tolist()
    ]
    sides = [
        ([-half, 0, -half], [thick - half, height, half]),
        ([half - thick, 0, -half], [half, height, half]),
    ]
    return _boxes(origin, rays, [*boards, *sides])


def lamp(origin: Array, rays: Array, width: float, height: float) -> Hit:
    """A foot, a pole and a shade."""
    shade = np.array([0, 0.62 * height, 0], np.float32)
    return _nearest(
        [
            cylinder(origin, rays, 0.7 * width, 0.04 * height),
            cylinder(origin, rays, 0.14 * width, 0.7 * height),
            cone(origin - shade, rays, width, 0.38 * height),
        ]
    )


def door(origin: Array, rays: Array, width: float, height: float) -> Hit:
    """A panel, and a knob on its right."""
    knob = np.array([0.38 * width, 0.45 * height, -0.05], np.float32)
    thin = DOOR_THICKNESS_M / 2
    return _nearest(
        [
            _slabs(origin, rays, [-width / 2, 0, -thin], [width / 2, height, thin]),
            _sphere(origin - knob, rays, 0, 0.06 * width),
        ]
    )


INTERSECT: dict[str, Callable[[Array, Array, float, float], Hit]] = {
    "cube": cube,
    "ball": ball,
    "cylinder": cylinder,
    "cone": cone,
    "pyramid": pyramid,
    "capsule": capsule,
    "table": table,
    "chair": chair,
    "sofa": sofa,
    "shelf": shelf,
    "lamp": lamp,
    "door": door,
}
