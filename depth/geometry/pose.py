"""Read the pose of a camera, check it, and bring it to camera-to-world in OpenCV axes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depth.conventions import CONVENTIONS, Convention
from depth.errors import DepthError
from depth.geometry_reasons import LARGEST_M, ROTATION_TOLERANCE

Pose = NDArray[np.float64]  # [4, 4]
_QUATERNION_TOLERANCE = 1e-2


def find_convention(name: str | None) -> Convention:
    """Return a convention by name. Raises DepthError (bad_convention), also without a name."""
    if name is None or name not in CONVENTIONS:
        raise DepthError("convention_missing" if name is None else "convention")
    return CONVENTIONS[name]


def read_pose(raw: object, convention: str | None) -> Pose:
    """Return the pose as float64 [4, 4], from OpenCV camera axes to the world, in metres.

    raw: 4 x 4 or 16 numbers row by row, or {"position": [x, y, z], "quaternion": q}, where q is a list in the
    order of the convention, or an object with x, y, z and w. The rotation is brought to the nearest exact
    one. Raises DepthError (bad_pose, bad_convention).
    """
    if isinstance(raw, Mapping):
        named = find_convention(convention)
        matrix = _of_position(raw, named)
    else:
        matrix = _of_matrix(raw)
        named = find_convention(convention)
    if np.abs(matrix[:3, 3]).max() > LARGEST_M:
        raise DepthError("pose_far")
    pose = np.eye(4)
    pose[:3, :3] = _nearest_rotation(matrix[:3, :3]) @ named.axes
    pose[:3, 3] = matrix[:3, 3]
    return pose


def inverted(pose: Pose) -> Pose:
    """Return the inverse of a rigid transform: (R, t) becomes (R^T, -R^T t)."""
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse


def transformed(pose: Pose, points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Move points [n, 3] by a rigid transform."""
    return points @ pose[:3, :3].T + pose[:3, 3]


def _of_matrix(raw: object) -> Pose:
    matrix = _numbers(raw)
    if matrix is None or matrix.size != 16 or matrix.shape not in ((16,), (4, 4)):
        raise DepthError("pose_form")
    matrix = matrix.reshape(4, 4)
    if not np.isfinite(matrix).all():
        raise DepthError("pose_not_finite")
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > ROTATION_TOLERANCE:
        is_turned = np.abs(matrix[:, 3] - (0, 0, 0, 1)).max() <= ROTATION_TOLERANCE
        raise DepthError("pose_transposed" if is_turned else "pose_last_row")
    _check_rotation(matrix[:3, :3])
    return matrix


def _check_rotation(rotation: NDArray[np.float64]) -> None:
    gram = rotation @ rotation.T
    if np.abs(gram - np.eye(3)).max() > ROTATION_TOLERANCE:
        scale = gram.trace() / 3
        is_scaled = scale > 0 and np.abs(gram / scale - np.eye(3)).max() <= ROTATION_TOLERANCE
        raise DepthError("pose_scaled" if is_scaled else "pose_rotation")
    if np.linalg.det(rotation) < 0:
        raise DepthError("pose_mirrored")


def _of_position(raw: Mapping[Any, Any], convention: Convention) -> Pose:
    if set(raw) != {"position", "quaternion"}:
        raise DepthError("pose_form")
    position, quaternion = _numbers(raw["position"]), _quaternion(raw["quaternion"], convention)
    if position is None or position.shape != (3,) or quaternion is None:
        raise DepthError("pose_form")
    if not np.isfinite(position).all() or not np.isfinite(quaternion).all():
        raise DepthError("pose_not_finite")
    length = float(np.linalg.norm(quaternion))
    if abs(length - 1) > _QUATERNION_TOLERANCE:
        raise DepthError("pose_quaternion")
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_of(quaternion / length)
    matrix[:3, 3] = position
    return matrix


def rotation_of(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 3 x 3 rotation of a unit quaternion x, y, z, w."""
    vector, w = quaternion[:3], quaternion[3]
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def _quaternion(raw: object, convention: Convention) -> NDArray[np.float64] | None:
    """Return x, y, z, w."""
    if isinstance(raw, Mapping):
        if set(raw) != set("xyzw"):
            return None
        raw = [raw[name] for name in "xyzw"]
        return _numbers(raw)
    values = _numbers(raw)
    if values is None or values.shape != (4,):
        return None
    return np.roll(values, -1) if convention.w_first else values


def _numbers(raw: object) -> NDArray[np.float64] | None:
    """Return an array of what is a list, or a list of lists, of numbers; None for anything else."""
    if isinstance(raw, np.ndarray):
        return raw.astype(np.float64)
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes):
        return None
    flat = [one for row in raw for one in row] if raw and isinstance(raw[0], list | tuple) else raw
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in flat):
        return None
    try:
        return np.array(raw, dtype=np.float64)
    except (ValueError, OverflowError):
        return None


def _nearest_rotation(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    u, _, v = np.linalg.svd(rotation)
    return u @ v
