"""Conventions of poses by name: the axes of the camera, and the order of quaternions.

Everything below works in one of them: camera to world, OpenCV axes (x right, y down, z forward), pixel
centres at integers, depth along z.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

OPENCV_AXES = np.eye(3)
OPENGL_AXES = np.diag([1.0, -1.0, -1.0])  # x right, y up, z backward
BODY_AXES = np.array(
    [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
)  # x forward, y left, z up: REP 103


@dataclass(frozen=True, eq=False)
class Convention:
    """Say how a source writes poses.

    axes: 3 x 3, a direction in OpenCV's camera axes as this convention's camera writes it. source: who uses
    it. w_first: a quaternion is w, x, y, z; else x, y, z, w.
    """

    name: str
    axes: NDArray[np.float64]
    source: str
    w_first: bool = False


_ROWS = (
    Convention("opencv", OPENCV_AXES, "camera to world, x right, y down, z forward (OpenCV, COLMAP's axes)"),
    Convention("opengl", OPENGL_AXES, "camera to world, x right, y up, z backward (OpenGL, Blender, NeRF)"),
    Convention("ros_optical", OPENCV_AXES, "ROS: lookup_transform(map, camera_optical_frame)"),
    Convention("ros_body", BODY_AXES, "ROS: pose of a camera link by REP 103, x forward, y left, z up"),
    Convention("scannet", OPENCV_AXES, "ScanNet: the pose .txt of a frame, camera to world"),
    Convention(
        "habitat", OPENGL_AXES, "Habitat and OpenEQA HM3D: state of the sensor, not of the agent", True
    ),
    Convention("arkit", OPENGL_AXES, "ARKit: camera.transform of a picture in landscape"),
    Convention("tum", OPENCV_AXES, "TUM RGB-D: position tx ty tz, quaternion qx qy qz qw"),
)
CONVENTIONS: Mapping[str, Convention] = MappingProxyType({row.name: row for row in _ROWS})
