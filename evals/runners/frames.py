"""Choose evenly spaced frames of a scene from a folder, and the depth maps beside them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from evals.runners.geometry import Geometry, geometry_beside
from evals.runners.items import DatasetError

PICTURES = (".jpg", ".jpeg", ".png")
SCANNET_OPTIONS = (
    click.Option(
        ["--scans"],
        type=click.Path(path_type=Path),
        help="ScanNet's scans/ with color/ and depth/; DATA/scans.",
    ),
    click.Option(["--frames"], type=click.IntRange(min=1), help="Frames of a scene, evenly spaced; 12."),
)


@dataclass(frozen=True)
class Frames:
    """The frames of a scene, in the order they were taken; depths: none, or one per image.

    geometry: where they were taken, None if that is not known.
    """

    images: tuple[Path, ...]
    depths: tuple[Path, ...] = ()
    preset: str | None = None
    geometry: Geometry | None = None


def evenly(paths: Sequence[Path], count: int) -> tuple[Path, ...]:
    """Return `count` of them from the first to the last, all if there are fewer: floor(i (n-1) / (count-1)).

    The positions are those of lmms-eval and of CoVeR's uniform views: linspace truncated to integers.
    """
    if count < 1:
        raise ValueError(f"a scene needs at least one frame, not {count}")
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths)), dtype=int)
    return tuple(paths[position] for position in chosen)


def image_files(folder: Path) -> list[Path]:
    """List the images of a folder by the numbers in their names: 2.jpg before 10.jpg."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if path.suffix.lower() in PICTURES), key=_in_order)


def scene_frames(folder: Path, scenes: Collection[str], count: int) -> dict[str, Frames]:
    """Choose `count` frames of every scene: `folder`/<scene>/*.jpg or *.png. Raises DatasetError."""
    listed = {scene: image_files(folder / scene) for scene in scenes}
    _refuse_empty({scene: folder / scene for scene in scenes if not listed[scene]}, len(listed))
    return {scene: Frames(evenly(paths, count)) for scene, paths in listed.items()}


def scannet_frames(scans: Path, scenes: Collection[str], count: int) -> dict[str, Frames]:
    """Choose `count` frames of every ScanNet scene, as the exporter names them: <scene>/color/<n>.jpg.

    Depth is <scene>/depth/<n>.png, in every scene or in none. Raises DatasetError for scenes without frames,
    and where only some have depth: a score must not mix measured and estimated depth.
    """
    frames = scene_frames(scans, [f"{scene}/color" for scene in scenes], count)
    without = [scene for scene in scenes if not (scans / scene / "depth").is_dir()]
    if 0 < len(without) < len(set(scenes)):
        raise DatasetError(
            f"{len(set(without))} of {len(set(scenes))} scenes have no folder `depth`, the first is "
            f"{scans / without[0]}: export depth for every scene, or for none"
        )
    images = {scene: frames[f"{scene}/color"].images for scene in scenes}
    taken = {scene: _geometry(scans / scene, paths) for scene, paths in images.items()}
    if without:
        return {scene: Frames(paths, geometry=taken[scene]) for scene, paths in images.items()}
    depths = {
        scene: tuple(scans / scene / "depth" / f"{path.stem}.png" for path in paths)
        for scene, paths in images.items()
    }
    return {scene: Frames(paths, depths[scene], "scannet", taken[scene]) for scene, paths in images.items()}


def _geometry(scene: Path, images: Sequence[Path]) -> Geometry | None:
    """Return the poses and intrinsics that the exporter writes: pose/7.txt, intrinsic/intrinsic_color.txt."""
    poses = [scene / "pose" / f"{path.stem}.txt" for path in images]
    return geometry_beside(poses, [scene / "intrinsic", scene], "scannet")


def _refuse_empty(missing: dict[str, Path], of: int) -> None:
    if missing:
        first = next(iter(missing.values()))
        raise DatasetError(
            f"{len(missing)} of {of} scenes have no frames, the first is {first}: "
            "expected numbered .jpg or .png files there"
        )


def _in_order(path: Path) -> list[tuple[bool, int, str]]:
    parts = re.findall(r"\d+|\D+", path.stem)
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
