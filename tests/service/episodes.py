"""Frames of a walk through a room as files, and an episode that is pushed to a running service."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from tests.depth.files import png16
from tests.depth.geometry.worlds import cast
from tests.service.files import encode
from tests.tosa.frames.walks import NARROW, poses

WIDTH, HEIGHT = NARROW.width, NARROW.height
INTRINSICS = {"fx": NARROW.fx, "fy": NARROW.fy, "cx": NARROW.cx, "cy": NARROW.cy}
RULE = {"convention": "opencv", "intrinsics": INTRINSICS, "depth_scale": 1000}
SHORT = {"question": "how many cubes ?", "max_new_tokens": 4}


@cache
def walk(number: int) -> tuple[tuple[bytes, bytes, list[list[float]]], ...]:
    """Return image, depth and pose of each frame: 80 x 60, millimetres, camera to world in OpenCV axes."""
    frames = []
    for at, pose in enumerate(poses(number + 1)[1:]):
        colours = np.random.default_rng(at).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(colours).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))
        depth = np.round(cast(pose, NARROW) * 1000).astype(np.uint16)
        frames.append((encode(image, "PNG"), png16(depth), pose.tolist()))
    return tuple(frames)


def begin(client: Any, **fields: Any) -> str:
    response = client.post("/episodes", json={**RULE, **fields})
    assert response.status_code == 201, response.text
    return response.json()["id"]


def push(client: Any, episode: str, at: int, **more: Any) -> Any:
    image, depth, pose = walk(12)[at]
    files = {"images": [text(image)], "depths": [text(depth)], "pose": pose}
    body = {name: value for name, value in {**files, **more}.items() if value is not ...}
    return client.post(f"/episodes/{episode}/frames", json=body)


def ask(client: Any, episode: str, **more: Any) -> Any:
    return client.post(f"/episodes/{episode}/vqa", json={**SHORT, **more})


def at_once(client: Any, frames: range, **fields: Any) -> Any:
    """Send the same frames with a question, without an episode."""
    images, depths, own = zip(*(walk(12)[at] for at in frames), strict=True)
    files = {"images": list(map(text, images)), "depths": list(map(text, depths)), "poses": list(own)}
    return client.post("/vqa", json={**RULE, **SHORT, **files, **fields})


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()
