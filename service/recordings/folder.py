"""Folders of frames, as ScanNet, OpenEQA and TUM lay them out.

color/7.jpg, depth/7.png and pose/7.txt; 7-rgb.png, 7-depth.png and 7.txt; or the lists rgb.txt, depth.txt and
groundtruth.txt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.recordings.recording import RecordedFrame, Walk, WalkError, nearest

IMAGES = (".jpg", ".jpeg", ".png", ".webp")
DEPTHS = (".png", ".tif", ".tiff", ".npy", ".npz", ".exr", ".pgm", ".jpg")
COLOUR_FOLDERS, DEPTH_FOLDERS, POSE_FOLDERS = (
    ("color", "rgb", "image", "images"),
    ("depth",),
    ("pose", "poses"),
)
INTRINSICS = ("intrinsic_color.txt", "intrinsics_color.txt", "intrinsics.txt", "intrinsic.txt")
DEPTH_INTRINSICS = ("intrinsic_depth.txt", "intrinsics_depth.txt")
TUM_LISTS = ("rgb.txt", "depth.txt", "groundtruth.txt")
TUM_NEAR_S = 0.02
"""As TUM's own tools match the lists."""
_FORMS = (
    "color/7.jpg with depth/7.png and pose/7.txt, 7-rgb.png with 7-depth.png and 7.txt, or the lists "
    "rgb.txt, depth.txt and groundtruth.txt"
)


def read_folder(folder: Path) -> Walk:
    """Read a folder of frames; depth and poses may be absent. Raises WalkError, OSError."""
    if not folder.is_dir():
        raise WalkError(f"{folder} is no folder")
    if (folder / TUM_LISTS[0]).is_file():
        return _lists(folder)
    colour = next((folder / name for name in COLOUR_FOLDERS if (folder / name).is_dir()), None)
    if colour is not None:
        return _stems(
            folder,
            _files(colour, IMAGES),
            _by_stem(folder, DEPTH_FOLDERS, DEPTHS),
            _by_stem(folder, POSE_FOLDERS, (".txt",)),
        )
    flat = {
        path.stem.removesuffix("-rgb"): path for path in _files(folder, IMAGES) if path.stem.endswith("-rgb")
    }
    if not flat:
        raise WalkError(f"{folder} holds no frames as this program knows them: {_FORMS}")
    depths = {
        path.stem.removesuffix("-depth"): path
        for path in _files(folder, DEPTHS)
        if path.stem.endswith("-depth")
    }
    poses = {path.stem: path for path in _files(folder, (".txt",)) if path.stem in flat}
    return _stems(folder, list(flat.values()), depths, poses, "-rgb")


def _stems(
    folder: Path, images: Sequence[Path], depths: Mapping[str, Path], poses: Mapping[str, Path], end: str = ""
) -> Walk:
    """Return a walk whose files belong together by their names."""
    if not images:
        raise WalkError(f"{folder} holds no images: {_FORMS}")
    stems = [image.stem.removesuffix(end) for image in images]
    has_depth = _all_or_none(folder, "depth", [stem in depths for stem in stems])

    def read(numbers: Sequence[int]) -> Iterator[RecordedFrame]:
        for at in numbers:
            stem = stems[at]
            pose = read_pose_file(poses[stem]) if stem in poses else None
            yield RecordedFrame(
                images[at].name,
                images[at].read_bytes(),
                depths[stem].read_bytes() if has_depth else None,
                {} if pose is None else {"pose": pose},
            )

    return Walk(folder, len(images), _cameras(folder), read, _missing(len(images), len(poses)))


def _lists(folder: Path) -> Walk:
    """Return a walk of lists with times."""
    images, depths = (_timed(folder / name) for name in TUM_LISTS[:2])
    poses = _timed(folder / TUM_LISTS[2])
    if not images:
        raise WalkError(f"{folder / TUM_LISTS[0]} names no images")
    depth_times, pose_times = [time for time, _ in depths], [time for time, _ in poses]
    if depths:  # each image of a walk has depth, or none has
        images = [one for one in images if nearest(depth_times, one[0], TUM_NEAR_S) is not None]
    if not images:
        raise WalkError(f"{folder}: no image has depth within {TUM_NEAR_S} s")

    def read(numbers: Sequence[int]) -> Iterator[RecordedFrame]:
        for time, (name, *_) in (images[at] for at in numbers):
            depth = nearest(depth_times, time, TUM_NEAR_S)
            posed = nearest(pose_times, time, TUM_NEAR_S)
            fields: dict[str, Any] = {"timestamp": time}
            if posed is not None:
                numbers_of = _floats(folder / TUM_LISTS[2], poses[posed][1], 7)
                fields["pose"] = {"position": numbers_of[:3], "quaternion": numbers_of[3:]}
            yield RecordedFrame(
                name,
                (folder / name).read_bytes(),
                None if depth is None else (folder / depths[depth][1][0]).read_bytes(),
                fields,
            )

    own = {"convention": "tum", "depth_preset": "tum"}
    return Walk(folder, len(images), {**own, **_cameras(folder)}, read, _missing(len(images), len(poses)))


def _timed(path: Path) -> list[tuple[float, list[str]]]:
    """Return the lines of a list, by time, without its comments."""
    if not path.is_file():
        return []
    lines = [line.split() for line in path.read_text().splitlines() if line.strip() and line[0] != "#"]
    try:
        return sorted((float(time), rest) for time, *rest in lines if rest)
    except ValueError:
        raise WalkError(f"{path}: every line begins with a time in seconds") from None


def read_pose_file(path: Path) -> list[float] | None:
    """Return the 16 numbers of a pose, None for one that tracking had lost."""
    values = _floats(path, path.read_text().replace(",", " ").split(), 16)
    return values if all(map(math.isfinite, values)) else None


def _cameras(folder: Path) -> dict[str, Any]:
    """Return the intrinsics that lie beside the frames, as a request has them."""
    found = {}
    for field, names in (("intrinsics", INTRINSICS), ("depth_intrinsics", DEPTH_INTRINSICS)):
        paths = [place / name for place in (folder, folder / "intrinsic") for name in names]
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            found[field] = read_camera_file(path)
    return found


def read_camera_file(path: Path) -> dict[str, float]:
    """Return fx, fy, cx and cy of a file with these four numbers, or a 3 x 3 or 4 x 4 matrix."""
    words = path.read_text().replace(",", " ").split()
    if len(words) == 4:
        fx, fy, cx, cy = _floats(path, words, 4)
    elif len(words) in (9, 16):
        values, side = _floats(path, words, len(words)), math.isqrt(len(words))
        fx, fy, cx, cy = values[0], values[side + 1], values[2], values[side + 2]
    else:
        raise WalkError(f"{path}: fx fy cx cy, or a matrix of 3 x 3 or 4 x 4 numbers, stands here")
    return {"fx": fx, "fy": fy, "cx": cx, "cy": cy}


def _floats(path: Path, words: Sequence[str], number: int) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != number:
        raise WalkError(f"{path}: {number} numbers stand here, separated by spaces")
    return values


def _files(folder: Path, endings: Sequence[str]) -> list[Path]:
    """Return the files of these endings, 2 before 10."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in endings and path.is_file()]
    return sorted(
        found, key=lambda path: [int(part) if part.isdigit() else part for part in _parts(path.stem)]
    )


def _parts(stem: str) -> list[str]:
    return re.split(r"(\d+)", stem)


def _by_stem(folder: Path, names: Sequence[str], endings: Sequence[str]) -> dict[str, Path]:
    place = next((folder / name for name in names if (folder / name).is_dir()), None)
    return {} if place is None else {path.stem: path for path in _files(place, endings)}


def _all_or_none(folder: Path, what: str, has: Sequence[bool]) -> bool:
    if any(has) and not all(has):
        raise WalkError(
            f"{folder}: {has.count(False)} of {len(has)} images have no {what}: all have one, or none"
        )
    return all(has)


def _missing(images: int, poses: int) -> tuple[str, ...]:
    if poses >= images:
        return ()
    return (f"{images - poses} of {images} frames have no pose: what they show has no place",)
