"""Write a walk to disk as a robot would record it: pictures, depth, and what `POST /episodes` needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.roomqa.depth_cameras import measured_depth
from service.roomqa.export import MM_PER_M, millimetres
from service.roomqa.walks.arrange import make_walk
from service.roomqa.walks.drift import drifted
from service.roomqa.walks.questions import sights, walk_questions
from service.roomqa.walks.render import render_view
from service.roomqa.walks.world import EIGHT, FRAMES, SECONDS_APART, intrinsics


def write_walk(
    seed: int,
    out: Path,
    frames: int = FRAMES,
    size: int = 384,
    n_questions: int = 12,
    moves: bool = False,
    camera: str = "exact",
    drift_m: float = 0.0,
) -> None:
    """Write 00-rgb.png, 00-depth.png (16-bit, millimetres), 00.txt (pose) and so on, and walk.json.

    The layout is that of OpenEQA's episodes, with intrinsic_color.txt; poses are camera to world, in OpenCV
    axes. frames: 8 or 16 of the same walk. moves: one thing is moved while nobody looks. camera: one of
    CAMERAS, which measures depth. drift_m: how far the poses are off at the end, in the root mean square.
    """
    walk = make_walk(seed, moves)
    views = [render_view(walk, at, size) for at in range(FRAMES)]
    poses = drifted([one.pose for one in walk.cameras], drift_m, seed)
    out.mkdir(parents=True, exist_ok=True)
    written: list[dict[str, Any]] = []
    for number, at in enumerate(EIGHT if frames == len(EIGHT) else range(FRAMES)):
        view = views[at]
        depth = measured_depth(camera, view.depth, view.rgb, seed * FRAMES + at)
        names = f"{number:02}-rgb.png", f"{number:02}-depth.png"
        Image.fromarray(view.rgb).save(out / names[0])
        Image.fromarray(millimetres(depth)).save(out / names[1])
        np.savetxt(out / f"{number:02}.txt", poses[at], fmt="%.9f")
        row = {"rgb": names[0], "depth": names[1], "timestamp": at * SECONDS_APART}
        written.append(row | {"pose": poses[at].round(9).tolist()})
    np.savetxt(out / "intrinsic_color.txt", _matrix(intrinsics(size)), fmt="%.6f")
    asked = walk_questions(sights(walk, views), seed, n_questions)
    record = {
        "seed": seed,
        "route": walk.kind,
        "depth_camera": camera,
        "drift_m": drift_m,
        "episode": {"convention": "opencv", "depth_scale": MM_PER_M, "intrinsics": intrinsics(size)},
        "frames": written,
        "things": [asdict(thing) for thing in walk.things],
        "moves": [asdict(move) for move in walk.moves],
        "questions": [{"question": one.question, "answer": one.answer, "type": one.type} for one in asked],
    }
    (out / "walk.json").write_text(json.dumps(record, indent=1) + "\n")


def _matrix(camera: dict[str, float]) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[0, 0], matrix[1, 1] = camera["fx"], camera["fy"]
    matrix[:2, 2] = camera["cx"], camera["cy"]
    return matrix
