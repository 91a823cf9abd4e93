"""The ray caster of RoomQA: a scene to RGB, metric depth and per-pixel ids.

Shape and shade of the room are one value per row and column; each thing is drawn inside its projected box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from service.roomqa.scene import CAMERA_HEIGHT_M, COLOURS, FOCAL, HORIZON, Pattern, Scene, Thing
from service.roomqa.shapes import INTERSECT

FLOOR, WALL, CEILING = -3, -2, -1
AMBIENT = 0.45


@dataclass(frozen=True)
class Frame:
    """The output of an RGB-D camera, and `ids`, the true thing in each pixel.

    rgb [S, S, 3] uint8; depth [S, S] float32, metres along the optical axis; ids [S, S] int16, the index into
    `scene.things`, or FLOOR, WALL, CEILING; horizon: its row over S.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    ids: NDArray[np.int16]
    horizon: float = HORIZON


def render(scene: Scene, size: int = 384) -> Frame:
    """Draw `scene` as seen by the camera, `size` pixels square."""
    frame = _draw_room(scene, size)
    if scene.has_shadows:
        for thing in scene.things:
            draw_shadow(frame, thing, scene.room.light, size)
    for index, thing in enumerate(scene.things):
        draw_thing(frame, index, thing, scene.room.light, size)
    noisy = frame.rgb + sensor_noise(size)[scene.seed % 8]
    return Frame(np.clip(noisy, 0, 255).astype(np.uint8), frame.depth, frame.ids, scene.horizon)


def rays(size: int, horizon: float = HORIZON) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Slopes of the pixel rays: x/z for every column, y/z (down) for every row."""
    pixel = np.arange(size, dtype=np.float32) + 0.5
    return (pixel - size / 2) / (FOCAL * size), (pixel - horizon * size) / (FOCAL * size)


@lru_cache(maxsize=4)
def sensor_noise(size: int) -> NDArray[np.int16]:
    rng = np.random.default_rng(0)
    return rng.integers(-4, 5, (8, size, size, 3), dtype=np.int16)


def _draw_room(scene: Scene, size: int) -> Frame:
    room = scene.room
    across, down = rays(size, scene.horizon)
    with np.errstate(divide="ignore"):
        side = np.where(across < 0, -room.left / across, room.right / across)
        plane = np.where(down > 0, CAMERA_HEIGHT_M / down, (CAMERA_HEIGHT_M - room.ceiling) / down)
    upright = np.minimum(side, np.float32(room.far))
    flat = plane[:, None] < upright[None, :]
    depth = np.where(flat, plane[:, None], upright[None, :]).astype(np.float32)
    flat_id = np.where(down > 0, FLOOR, CEILING).astype(np.int16)
    ids = np.where(flat, flat_id[:, None], np.int16(WALL))
    floor = np.where(down[:, None] > 0, room.floor_rgb, (236, 236, 232)) * fade(plane)[:, None]
    is_far = side >= room.far
    shade = np.where(is_far, 0.95, np.where(across < 0, 0.82, 0.88)) * fade(upright)
    wall = np.where(is_far[:, None], room.far_rgb, room.side_rgb) * shade[:, None]
    rgb = np.where(flat[..., None], floor.astype(np.int16)[:, None], wall.astype(np.int16)[None, :])
    frame = Frame(rgb, depth, ids, scene.horizon)  # type: ignore[arg-type]  # int16 until noise is added
    paint(frame, FLOOR, room.floor, across[None] * depth, depth)
    along = np.where(is_far, across * room.far, upright)
    paint(
        frame, WALL, room.walls, np.broadcast_to(along, depth.shape), CAMERA_HEIGHT_M - down[:, None] * depth
    )
    return frame


def paint(
    frame: Frame, surface: int, pattern: Pattern, u: NDArray[np.floating], v: NDArray[np.floating]
) -> None:
    """Darken the dark parts of a surface's pattern; u, v [S, S]: metres along and across it."""
    if pattern.kind == "plain":
        return
    mine = frame.ids == surface
    across, along = u[mine] / pattern.period, v[mine] / pattern.period
    dark = _is_dark(pattern.kind, across, along)
    factor = np.where(dark, np.float32(1 - pattern.contrast), np.float32(1))
    frame.rgb[mine] = (frame.rgb[mine] * factor[:, None]).astype(np.int16)


def _is_dark(kind: str, across: NDArray[np.floating], along: NDArray[np.floating]) -> NDArray[np.bool_]:
    column, row = np.floor(across), np.floor(along)
    if kind == "checks":
        return (column + row) % 2 == 1
    if kind == "stripes":
        return column % 2 == 1
    course = np.floor(2 * along)  # bricks: twice as long as high, every other course shifted by half
    return (2 * along - course < 0.12) | ((across + course / 2) % 1 < 0.06)


def draw_shadow(frame: Frame, thing: Thing, light: tuple[float, float, float], size: int) -> None:
    """Darken the floor round the foot of a thing, away from the light."""
    if thing.base > 0 or thing.shape == "door":
        return
    reach = 1.5 * thing.radius
    x, z = thing.x - 0.3 * thing.radius * light[0], thing.z - 0.3 * thing.radius * light[2]
    ground = replace(thing, shape="ball", width=2 * reach, x=x, z=z)
    top, bottom, left, right = _box(ground, size, frame.horizon, height=0)
    if top >= bottom or left >= right:
        return
    across, _ = rays(size, frame.horizon)
    window = (slice(top, bottom), slice(left, right))
    depth = frame.depth[window]
    away = np.hypot(across[None, left:right] * depth - x, depth - z) / reach
    factor = np.where(frame.ids[window] == FLOOR, 1 - 0.5 * np.clip(1.2 - 1.2 * away, 0, 1), 1)
    frame.rgb[window] = (frame.rgb[window] * factor[..., None]).astype(np.int16)


def fade(distance: NDArray[np.floating]) -> NDArray[np.floating]:
    return 1.04 - 0.05 * np.minimum(distance, 7)


def draw_thing(frame: Frame, index: int, thing: Thing, light: tuple[float, float, float], size: int) -> None:
    top, bottom, left, right = _box(thing, size, frame.horizon, thing.height)
    if top >= bottom or left >= right:
        return
    across, down = rays(size, frame.horizon)
    shape = (bottom - top, right - left)
    u = np.broadcast_to(across[None, left:right], shape).ravel()
    v = np.broadcast_to(down[top:bottom, None], shape).ravel()
    turn = np.array([math.cos(thing.yaw), math.sin(thing.yaw)], np.float32)
    directions = np.stack([u * turn[0] - turn[1], -v, u * turn[1] + turn[0]])
    to_x, to_z = -thing.x, -thing.z
    origin = np.array(
        [to_x * turn[0] - to_z * turn[1], CAMERA_HEIGHT_M - thing.base, to_x * turn[1] + to_z * turn[0]],
        np.float32,
    )
    t, normal = INTERSECT[thing.shape](origin, directions, thing.width, thing.height)
    window = (slice(top, bottom), slice(left, right))
    t = t.reshape(shape)
    seen = t < frame.depth[window]
    lx, ly, lz = light
    local_light = np.array([lx * turn[0] - lz * turn[1], ly, lx * turn[1] + lz * turn[0]], np.float32)
    shade = AMBIENT + (1.1 - AMBIENT) * np.maximum(local_light @ normal, 0).reshape(shape)[seen]
    frame.depth[window][seen] = t[seen]
    frame.ids[window][seen] = index
    frame.rgb[window][seen] = (shade[:, None] * np.array(COLOURS[thing.colour], np.float32)).astype(np.int16)


def _box(thing: Thing, size: int, horizon: float, height: float) -> tuple[int, int, int, int]:
    """Pixel rows and columns that hold the thing up to `height`: top, bottom, left, right (half open)."""
    near, far = max(thing.z - thing.radius, 0.1), thing.z + thing.radius
    scale, middle = FOCAL * size, size / 2
    xs = [(thing.x + side * thing.radius) / z for side in (-1, 1) for z in (near, far)]
    ys = [(CAMERA_HEIGHT_M - y) / z for y in (thing.base, thing.base + height) for z in (near, far)]
    left, right = math.floor(middle + scale * min(xs)) - 1, math.ceil(middle + scale * max(xs)) + 1
    top, bottom = (
        math.floor(horizon * size + scale * min(ys)) - 1,
        math.ceil(horizon * size + scale * max(ys)) + 1,
    )
    return max(top, 0), min(bottom, size), max(left, 0), min(right, size)
