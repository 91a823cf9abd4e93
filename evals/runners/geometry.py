"""Where the frames of a question were taken: poses and intrinsics, as ScanNet and OpenEQA have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.runners.items import DatasetError, Item
from service.recordings.folder import DEPTH_INTRINSICS, INTRINSICS, read_camera_file, read_pose_file
from service.recordings.recording import WalkError


@dataclass(frozen=True)
class Geometry:
    """Name the files; poses: one for each frame, None where there is none. convention: of the poses."""

    poses: tuple[Path | None, ...]
    intrinsics: Path
    depth_intrinsics: Path | None
    convention: str

    def fields(self, image: Path, with_depth: bool) -> dict[str, Any]:
        """Return them as fields of a request. image: one of the frames. Raises DatasetError, OSError.

        OpenEQA writes HM3D's intrinsics with a wrong fy; square pixels are sent in its place.
        """
        try:
            found = {path: read_pose_file(path) for path in self.poses if path is not None}
            camera = _corrected(read_camera_file(self.intrinsics), image)
            own = None if self.depth_intrinsics is None else read_camera_file(self.depth_intrinsics)
        except WalkError as error:
            raise DatasetError(str(error)) from None
        poses = [None if path is None else found[path] for path in self.poses]
        depth = {"depth_intrinsics": own} if own is not None and with_depth else {}
        return {"poses": poses, "intrinsics": camera, "convention": self.convention, **depth}


def geometry_beside(poses: Sequence[Path], folders: Sequence[Path], convention: str) -> Geometry | None:
    """Return the geometry of frames whose poses would be these files; None if all are missing, or intrinsics.

    folders: where the files of intrinsics may lie.
    """
    there = tuple(path if path.is_file() else None for path in poses)
    intrinsics = _first(folders, INTRINSICS)
    if intrinsics is None or not any(there):
        return None
    return Geometry(there, intrinsics, _first(folders, DEPTH_INTRINSICS), convention)


def _first(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    paths = [folder / name for folder in folders for name in names]
    return next((path for path in paths if path.is_file()), None)


def _corrected(camera: Mapping[str, float], image: Path) -> dict[str, float]:
    from PIL import Image

    from depth.geometry import Intrinsics
    from depth.geometry.camera import corrected_fy

    with Image.open(image) as opened:
        width, height = opened.size
    own = Intrinsics(camera["fx"], camera["fy"], camera["cx"], camera["cy"], width, height)
    better = corrected_fy(own) or own
    return {"fx": better.fx, "fy": better.fy, "cx": better.cx, "cy": better.cy}


def check_places(items: Sequence[Item], spec: Mapping[str, Any]) -> None:
    """Refuse to merge by place across frames without poses, intrinsics and depth. Raises DatasetError."""
    from tosa.frames import GEOMETRIC

    if spec.get("merge_frames") not in GEOMETRIC:
        return
    for item in items:
        if item.geometry is None or not item.depths:
            lacking = "depth" if item.geometry is not None else "poses with intrinsics"
            raise DatasetError(
                f"merge_frames={spec['merge_frames']} merges by place, and the frames of question {item.id} "
                f"have no {lacking}: extract them beside the frames, or ask about episodes that have them"
            )
