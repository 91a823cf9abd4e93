"""What may be wrong with the pose, the intrinsics or the time of a frame: reason to code and sentence.

Part of `depth.errors.REASONS`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from depth.conventions import CONVENTIONS

_NAMES = ", ".join(CONVENTIONS)
LARGEST_M = 10_000_000
"""Positions beyond are no metres: the Earth's circumference is four times this."""
ROTATION_TOLERANCE = 1e-3
WIDEST_FOV = 179

GEOMETRY_REASONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "convention": ("bad_convention", f"No such convention of poses. Known: {_NAMES}."),
        "convention_missing": (
            "bad_convention",
            "A pose needs the convention that it is written in, because none can be guessed safely: send "
            f"convention, one of {_NAMES}.",
        ),
        "pose_form": (
            "bad_pose",
            "A pose is a matrix from camera to world, as 4 x 4 or 16 numbers row by row, or an object with "
            "position [x, y, z] in metres and quaternion.",
        ),
        "pose_not_finite": (
            "bad_pose",
            "The pose holds NaN or infinity, as ScanNet writes it for frames that tracking lost: leave the "
            "frame out, or send null as its pose.",
        ),
        "pose_transposed": (
            "bad_pose",
            "The matrix of the pose is transposed: its translation stands in the last row. Send it row by "
            "row (ARKit's simd matrices are stored by column).",
        ),
        "pose_last_row": ("bad_pose", "The last row of a pose is 0, 0, 0, 1."),
        "pose_scaled": (
            "bad_pose",
            "The rotation of the pose is scaled, as in transforms of a renderer: divide its columns by their "
            "length.",
        ),
        "pose_mirrored": (
            "bad_pose",
            "The rotation of the pose has determinant -1: it mirrors the world. Change the sign of one axis "
            "of the camera, or name the convention of the source and send its matrix unchanged.",
        ),
        "pose_rotation": (
            "bad_pose",
            "The upper left 3 x 3 of the pose is no rotation: its columns are not orthonormal within "
            f"{ROTATION_TOLERANCE:g}.",
        ),
        "pose_quaternion": (
            "bad_pose",
            "The quaternion of the pose does not have length 1. Its order is x, y, z, w (habitat: w, x, y, "
            "z); an object with x, y, z and w is clear in any order.",
        ),
        "pose_far": (
            "bad_pose",
            "The position of the pose is more than {limit} m from the origin: positions are in metres.",
        ),
        "intrinsics_form": (
            "bad_intrinsics",
            "intrinsics are an object with fx, fy, cx and cy in pixels (with width and height of the picture "
            "they are for, if that has another size), or with hfov or vfov, or both, in degrees.",
        ),
        "intrinsics_not_finite": (
            "bad_intrinsics",
            "The focal lengths of the intrinsics are finite numbers above 0; their principal point is "
            "finite.",
        ),
        "intrinsics_fov": (
            "bad_intrinsics",
            "A field of view of the intrinsics is above 0 and below {limit} degrees.",
        ),
        "intrinsics_outside": (
            "bad_intrinsics",
            "The principal point lies outside of the picture, so these are the intrinsics of a picture of "
            "another size: send its width and height with them, or scale them.",
        ),
        "intrinsics_aspect": (
            "bad_intrinsics",
            "The width and height of the intrinsics have other proportions than the picture: send those of "
            "the picture as it is, after any cropping.",
        ),
        "intrinsics_missing": (
            "bad_intrinsics",
            "A pose needs intrinsics to place what the camera sees: send fx, fy, cx and cy, or hfov.",
        ),
        "timestamp": ("bad_timestamp", "A timestamp is a finite number of seconds."),
        "timestamp_order": (
            "bad_timestamp",
            "Frames come in the order of their time, and this timestamp is earlier than the one before: sort "
            "the frames, or leave the timestamps out.",
        ),
    }
)
GEOMETRY_LIMITS = {"pose_far": LARGEST_M, "intrinsics_fov": WIDEST_FOV}
GEOMETRY_FIELDS = {
    "bad_convention": "convention",
    "bad_pose": "pose",
    "bad_intrinsics": "intrinsics",
    "bad_timestamp": "timestamp",
}
