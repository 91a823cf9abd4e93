"""Write a RoomQA scene to disk as a robot would record it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.roomqa.arrange import make_scene
from service.roomqa.condition import Condition
from service.roomqa.depth_cameras import measured_depth
from service.roomqa.questions import questions
from service.roomqa.render import render
from service.roomqa.scene import CAMERA_HEIGHT_M, FOCAL
from service.roomqa.spoil import spoil

MM_PER_M = 1000


def millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return depth in metres as 16-bit depth files hold it."""
    return np.round(depth * MM_PER_M).astype(np.uint16)


def write_scene(
    seed: int,
    out: Path,
    size: int = 384,
    n_questions: int = 8,
    condition: Condition | None = None,
    camera: str = "exact",
) -> None:
    """Write rgb.png, depth.png (16-bit, millimetres) and scene.json (camera, things, questions).

    condition: what spoils the picture; camera: one of CAMERAS, which measures depth.
    """
    scene = make_scene(seed)
    frame = render(scene, size)
    rgb = frame.rgb if condition is None else spoil(frame.rgb, condition, seed, frame.depth)
    depth = measured_depth(camera, frame.depth, rgb, seed)
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(out / "rgb.png")
    Image.fromarray(millimetres(depth)).save(out / "depth.png")
    record = {
        "seed": seed,
        "condition": None if condition is None else asdict(condition),
        "depth_camera": camera,
        "camera": {
            "size_px": size,
            "focal_px": FOCAL * size,
            "centre_px": [size / 2, scene.horizon * size],
            "height_m": CAMERA_HEIGHT_M,
        },
        "things": [asdict(thing) for thing in scene.things],
        "questions": [asdict(question) for question in questions(scene, frame, seed, n_questions)],
    }
    (out / "scene.json").write_text(json.dumps(record, indent=1) + "\n")
