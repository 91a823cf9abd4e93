"""The ray caster: right by an independent definition of every shape, and by a pass over the whole frame."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evals.rooms import make_plain_scene, make_scene, render
from service.roomqa.render import FLOOR, WALL, rays
from service.roomqa.scene import CAMERA_HEIGHT_M, SHAPES, Pattern, Scene, Thing
from service.roomqa.shapes import INTERSECT

SIZE = 96


def _inside(thing: Thing, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Is the local point (y up from the base) inside the shape? Written apart from the ray caster."""
    half, height = thing.width / 2, thing.height
    inside_height = (y >= 0) & (y <= height)
    match thing.shape:
        case "cube":
            return (abs(x) <= half) & (abs(z) <= half) & inside_height
        case "ball":
            return x**2 + (y - half) ** 2 + z**2 <= half**2
        case "cylinder":
            return (x**2 + z**2 <= half**2) & inside_height
        case "cone":
            return (np.hypot(x, z) <= half * (1 - y / height)) & inside_height
        case "pyramid":
            return (np.maximum(abs(x), abs(z)) <= half * (1 - y / height)) & inside_height
        case "capsule":
            nearest = np.clip(y, half, height - half)
            return x**2 + (y - nearest) ** 2 + z**2 <= half**2
        case "door":
            knob = (x - 0.38 * thing.width) ** 2 + (y - 0.45 * height) ** 2 + (z + 0.05) ** 2
            return (abs(x) <= half) & (abs(z) <= 0.04) & inside_height | (knob <= (0.06 * thing.width) ** 2)
        case "lamp":
            away = np.hypot(x, z)
            foot, pole = (away <= 0.35 * thing.width) & (y <= 0.04 * height), away <= 0.07 * thing.width
            shade = (y >= 0.62 * height) & (away <= half * (height - y) / (0.38 * height))
            return inside_height & (foot | pole & (y <= 0.7 * height) | shade)
    return (abs(x) <= half) & (abs(z) <= half) & inside_height & _is_wood(thing, x, y, z)


def _is_wood(thing: Thing, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Which points of its bounding box a piece of furniture made of boards takes."""
    half, width, height = thing.width / 2, thing.width, thing.height
    sideways, back = half - abs(x), half - z  # from the nearer side, from the back
    front = half + z
    match thing.shape:
        case "table":
            legs = (sideways <= 0.1 * width) & (np.minimum(front, back) <= 0.1 * width)
            return legs | (y >= 0.88 * height)
        case "chair":
            seat = height / 2
            legs = (sideways <= 0.14 * width) & (np.minimum(front, back) <= 0.14 * width) & (y <= seat)
            return (
                legs | (abs(y - seat + 0.06 * width) <= 0.06 * width) | (y >= seat) & (back <= 0.14 * width)
            )
        case "sofa":
            arms = (sideways <= 0.16 * width) & (y <= 0.75 * height)
            return arms | (y <= height / 2) | (back <= 0.3 * width)
        case "shelf":
            thick = 0.08 * width
            boards = [abs(y - thick / 2 - n * (height - thick) / 3) <= thick / 2 for n in range(4)]
            return (sideways <= thick) | np.logical_or.reduce(boards)
    raise AssertionError(thing.shape)


def _march(thing: Thing, u: np.ndarray, v: np.ndarray, step: float = 0.003) -> np.ndarray:
    """First depth along each ray that is inside the thing, by marching; inf where there is none."""
    depth = np.full(u.shape, np.inf)
    for t in np.arange(thing.z - 1, thing.z + 1, step)[::-1]:
        wx, wz, y = u * t - thing.x, t - thing.z, CAMERA_HEIGHT_M - v * t - thing.base
        x = wx * math.cos(thing.yaw) - wz * math.sin(thing.yaw)
        z = wx * math.sin(thing.yaw) + wz * math.cos(thing.yaw)
        depth[_inside(thing, x, y, z)] = t
    return depth


@pytest.mark.parametrize("shape", SHAPES)
def test_depth_agrees_with_marching(shape: str) -> None:
    thing = Thing(shape, "red", 0.7, 0.3, 2.0, base=0.1, yaw=0.4)
    frame = render(Scene(0, make_scene(0).room, (thing,)), SIZE)
    across, down = rays(SIZE)
    u, v = np.meshgrid(across, down)
    marched = _march(thing, u, v)
    hit = frame.ids == 0
    assert hit.sum() > 200
    assert (hit != np.isfinite(marched)).sum() <= 0.03 * hit.sum()  # grazing rays
    both = hit & np.isfinite(marched)
    assert np.abs(frame.depth - marched)[both].max() < 0.02


@pytest.mark.parametrize("shape", SHAPES)
def test_normals_are_unit_and_face_the_camera(shape: str) -> None:
    thing = Thing(shape, "red", 0.6, 0.0, 2.0)
    across, down = (
        each.ravel() for each in np.meshgrid(np.linspace(-0.12, 0.12, 25), np.linspace(-0.6, 0, 25))
    )
    directions = np.stack([across, down, np.ones(625)]).astype(np.float32)
    origin = np.array([0, CAMERA_HEIGHT_M, -thing.z], np.float32)
    t, normal = INTERSECT[shape](origin, directions, thing.width, thing.height)
    hit = np.isfinite(t)
    assert hit.sum() > 10
    np.testing.assert_allclose(np.linalg.norm(normal[:, hit], axis=0), 1, atol=1e-3)
    assert ((normal * directions).sum(0)[hit] < 0).all()


def test_drawing_inside_the_box_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    module = sys.modules["service.roomqa.render"]
    scenes = [make_scene(seed) for seed in range(12)]
    boxed = [render(scene, SIZE) for scene in scenes]
    monkeypatch.setattr(module, "_box", lambda thing, size, horizon, height: (0, size, 0, size))
    for scene, frame in zip(scenes, boxed, strict=True):
        whole = render(scene, SIZE)
        np.testing.assert_array_equal(frame.ids, whole.ids)
        np.testing.assert_array_equal(frame.rgb, whole.rgb)


def test_the_nearest_surface_wins_and_the_floor_is_metric() -> None:
    near, far = Thing("ball", "red", 0.6, 0, 1.8), Thing("cube", "blue", 0.8, 0, 3.0)
    room = make_scene(0).room
    frame = render(Scene(0, room, (far, near)), SIZE)
    alone = render(Scene(0, room, (far,)), SIZE)
    assert (frame.ids == 1).sum() > 0
    assert (frame.depth[frame.ids == 1] < alone.depth[frame.ids == 1]).all()
    _, down = rays(SIZE)
    floor = frame.ids == FLOOR
    expected = np.broadcast_to((CAMERA_HEIGHT_M / down)[:, None], floor.shape)
    np.testing.assert_allclose(frame.depth[floor], expected[floor], rtol=1e-5)


def test_patterns_and_shadows_change_colours_alone() -> None:
    plain = Scene(0, make_plain_scene(0).room, (Thing("ball", "red", 0.6, 0.2, 2.0),))
    painted = replace(plain.room, floor=Pattern("checks", 0.5, 0.2), walls=Pattern("bricks", 0.6, 0.2))
    before = render(plain, SIZE)
    for scene, surfaces in (
        (replace(plain, room=painted), {FLOOR, WALL}),
        (replace(plain, has_shadows=True), {FLOOR}),
    ):
        after = render(scene, SIZE)
        np.testing.assert_array_equal(after.depth, before.depth)
        darker = (after.rgb < before.rgb).any(2)
        assert darker.sum() > 50 and not (after.rgb > before.rgb).any()
        assert set(before.ids[darker]) == surfaces


def test_a_camera_that_looks_down_sees_more_floor_at_the_same_places() -> None:
    level = Scene(0, make_plain_scene(0).room, ())
    down, before = render(replace(level, horizon=0.3), SIZE), render(level, SIZE)
    assert (down.ids == FLOOR).sum() > (before.ids == FLOOR).sum()
    slopes = rays(SIZE, down.horizon)[1]
    floor = down.ids == FLOOR
    expected = np.broadcast_to((CAMERA_HEIGHT_M / slopes)[:, None], floor.shape)
    np.testing.assert_allclose(down.depth[floor], expected[floor], rtol=1e-5)


def test_a_frame_is_what_a_camera_gives() -> None:
    frame = render(make_scene(5))
    assert frame.rgb.shape == (384, 384, 3) and frame.rgb.dtype == np.uint8
    assert frame.depth.shape == (384, 384) and frame.depth.dtype == np.float32
    assert np.isfinite(frame.depth).all() and frame.depth.min() > 0.4 and frame.depth.max() < 8


def test_same_seed_same_frame() -> None:
    one, again, other = render(make_scene(7), SIZE), render(make_scene(7), SIZE), render(make_scene(8), SIZE)
    np.testing.assert_array_equal(one.rgb, again.rgb)
    assert (one.rgb != other.rgb).any()
