"""Draw what a camera sees on its walk. The room is one value per row and column, as in single scenes.

Shade is that of a lamp which the camera carries, so that a thing looks alike from all sides; shadows on the
floor lie where the light of the room throws them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from service.roomqa.render import (
    CEILING,
    FLOOR,
    WALL,
    Frame,
    draw_shadow,
    draw_thing,
    fade,
    paint,
    rays,
    sensor_noise,
)
from service.roomqa.scene import CAMERA_HEIGHT_M, HORIZON
from service.roomqa.walks.world import Camera, House, Walk

SHADES = (0.82, 0.88, 0.9, 0.95)
"""Of walls to the left (of the world), to the right, near and far."""
_FAR = 3


def render_view(walk: Walk, frame: int, size: int = 384) -> Frame:
    """Draw a frame of a walk, `size` pixels square."""
    camera = walk.cameras[frame]
    drawn = _draw_house(walk.house, camera, size)
    things = [camera.thing(thing) for thing in walk.things_at(frame)]
    light = walk.house.room.light
    cos, sin = math.cos(camera.yaw), math.sin(camera.yaw)
    turned = (light[0] * cos - light[2] * sin, light[1], light[0] * sin + light[2] * cos)
    in_view = [(index, thing) for index, thing in enumerate(things) if thing.z + thing.radius > 0.1]
    for _, thing in in_view:
        draw_shadow(drawn, thing, turned, size)
    for index, thing in in_view:
        draw_thing(drawn, index, thing, light, size)
    noisy = drawn.rgb + sensor_noise(size)[(walk.seed + frame) % 8]
    return Frame(np.clip(noisy, 0, 255).astype(np.uint8), drawn.depth, drawn.ids)


def _draw_house(house: House, camera: Camera, size: int) -> Frame:
    room = house.room
    across, down = rays(size, HORIZON)
    upright, along, side = _walls(house, camera, across)
    with np.errstate(divide="ignore"):
        plane = np.where(down > 0, CAMERA_HEIGHT_M / down, (CAMERA_HEIGHT_M - room.ceiling) / down)
    flat = plane[:, None] < upright[None, :]
    depth = np.where(flat, plane[:, None], upright[None, :]).astype(np.float32)
    flat_id = np.where(down > 0, FLOOR, CEILING).astype(np.int16)
    ids = np.where(flat, flat_id[:, None], np.int16(WALL))
    floor = np.where(down[:, None] > 0, room.floor_rgb, (236, 236, 232)) * fade(plane)[:, None]
    shade = np.array(SHADES)[side] * fade(upright)
    wall = np.where((side == _FAR)[:, None], room.far_rgb, room.side_rgb) * shade[:, None]
    rgb = np.where(flat[..., None], floor.astype(np.int16)[:, None], wall.astype(np.int16)[None, :])
    frame = Frame(rgb, depth, ids)  # type: ignore[arg-type]  # int16 until noise is added
    right, forward = _directions(camera, across)
    paint(frame, FLOOR, room.floor, camera.x + right * depth, camera.z + forward * depth)
    height = CAMERA_HEIGHT_M - down[:, None] * depth
    paint(frame, WALL, room.walls, np.broadcast_to(along, depth.shape), height)
    return frame


def _directions(
    camera: Camera, across: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return how far the rays of all columns go along x and z of the world for a metre of depth: [S] each."""
    cos, sin = math.cos(camera.yaw), math.sin(camera.yaw)
    return across * cos + sin, cos - across * sin


def _walls(
    house: House, camera: Camera, across: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.intp]]:
    """Return the depth of the wall in each column, where along it the ray ends, and its shade in SHADES."""
    room = house.room
    right, forward = _directions(camera, across)
    depth = np.full(across.shape, np.inf)
    side = np.zeros(across.shape, np.intp)
    with np.errstate(divide="ignore", invalid="ignore"):
        outer = (
            (-room.left - camera.x) / right,
            (room.right - camera.x) / right,
            (house.near - camera.z) / forward,
            (room.far - camera.z) / forward,
        )
        for number, found in enumerate(outer):
            closer = (found > 0) & (found < depth)
            depth, side = np.where(closer, found, depth), np.where(closer, number, side)
        for x0, x1, z0, z1 in house.inner:
            by_x = np.sort([(x0 - camera.x) / right, (x1 - camera.x) / right], axis=0)
            by_z = np.sort([(z0 - camera.z) / forward, (z1 - camera.z) / forward], axis=0)
            found, leaves = np.maximum(by_x[0], by_z[0]), np.minimum(by_x[1], by_z[1])
            closer = (found > 0) & (found < leaves) & (found < depth)
            faces = np.where(by_x[0] > by_z[0], np.where(right > 0, 1, 0), np.where(forward > 0, 3, 2))
            depth, side = np.where(closer, found, depth), np.where(closer, faces, side)
    along = np.where(side < 2, camera.z + forward * depth, camera.x + right * depth)
    return depth.astype(np.float32), along, side
