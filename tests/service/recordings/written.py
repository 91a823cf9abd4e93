"""The frames of a walk as people record them: folders of three layouts, and a ROS 2 bag."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.depth.geometry.worlds import cast
from tests.service.episodes import INTRINSICS, walk
from tests.tosa.frames.walks import NARROW, poses

MATRIX = f"{INTRINSICS['fx']} 0 {INTRINSICS['cx']}\n0 {INTRINSICS['fy']} {INTRINSICS['cy']}\n0 0 1\n"
RATE_S = 0.5
COLOUR, DEPTH = "/camera/color/image_raw", "/camera/aligned_depth_to_color/image_raw"
CAMERA = "camera_color_optical_frame"
BODY_TO_CAMERA = np.array([[0.0, 0, 1, 0.1], [-1, 0, 0, 0.02], [0, -1, 0, 0.3], [0, 0, 0, 1]])
"""How a camera that looks ahead is mounted on a robot: REP 103's axes to optical ones."""


def text(pose: Sequence[Sequence[float]]) -> str:
    return "\n".join(" ".join(map(repr, row)) for row in pose) + "\n"


def scannet(folder: Path, number: int) -> Path:
    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True)
    for at, (image, depth, pose) in enumerate(walk(12)[:number]):
        (folder / "color" / f"{5 * at}.png").write_bytes(image)
        (folder / "depth" / f"{5 * at}.png").write_bytes(depth)
        (folder / "pose" / f"{5 * at}.txt").write_text(text(pose))
    (folder / "intrinsic" / "intrinsic_color.txt").write_text(MATRIX)
    return folder


def openeqa(folder: Path, number: int) -> Path:
    folder.mkdir(parents=True)
    for at, (image, depth, pose) in enumerate(walk(12)[:number]):
        (folder / f"{at:05}-rgb.png").write_bytes(image)
        (folder / f"{at:05}-depth.png").write_bytes(depth)
        (folder / f"{at:05}.txt").write_text(text(pose))
    camera = " ".join(str(INTRINSICS[name]) for name in ("fx", "fy", "cx", "cy"))
    (folder / "intrinsic_color.txt").write_text(camera)
    return folder


def tum(folder: Path, number: int) -> Path:
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    lists: dict[str, list[str]] = {"rgb": ["# time file"], "depth": [], "groundtruth": ["# t x y z q"]}
    for at, (image, _, pose) in enumerate(walk(12)[:number]):
        time = 1000 + RATE_S * at
        (folder / "rgb" / f"{time:.6f}.png").write_bytes(image)
        fifths = np.round(cast(np.array(pose), NARROW) * 5000).astype(np.uint16)
        Image.fromarray(fifths).save(folder / "depth" / f"{time + 0.004:.6f}.png")
        lists["rgb"].append(f"{time:.6f} rgb/{time:.6f}.png")
        lists["depth"].append(f"{time + 0.004:.6f} depth/{time + 0.004:.6f}.png")
        numbers = (*np.array(pose)[:3, 3], *quaternion(np.array(pose)))
        lists["groundtruth"].append(f"{time - 0.003:.6f} {' '.join(map(repr, map(float, numbers)))}")
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (folder / "intrinsics.txt").write_text(MATRIX)
    return folder


def quaternion(pose: Any) -> tuple[float, float, float, float]:
    """Return x, y, z, w of the rotation of a pose, from whichever of them is the largest."""
    turn = pose[:3, :3]
    squares = [1 + sum(turn[at, at] * (1 if at == own else -1) for at in range(3)) for own in range(3)]
    squares.append(1 + np.trace(turn))
    largest = int(np.argmax(squares))
    found = np.zeros(4)
    found[largest] = np.sqrt(squares[largest]) / 2
    for at, (one, other) in enumerate(((1, 2), (2, 0), (0, 1))):
        if largest == 3:
            found[at] = (turn[other, one] - turn[one, other]) / (4 * found[3])
        elif at == largest:
            found[3] = (turn[other, one] - turn[one, other]) / (4 * found[largest])
        else:
            found[at] = (turn[largest, at] + turn[at, largest]) / (4 * found[largest])
    x, y, z, w = map(float, found)
    return x, y, z, w


def bag(
    path: Path, number: int, metres: bool = False, compressed: bool = False, with_tf: bool = True
) -> Path:
    """Write pictures, aligned depth (16UC1; metres: 32FC1), camera_info and tf as a robot records them.

    tf tells how the body moves in odom, a quarter of a second before and after each picture; tf_static how
    the camera is mounted.
    """
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_HUMBLE)
    make = types.types

    def header(time: float, frame: str) -> Any:
        stamp = make["builtin_interfaces/msg/Time"](sec=int(time), nanosec=round(time % 1 * 1e9))
        return make["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)

    def transform(time: float, parent: str, child: str, matrix: Any) -> Any:
        x, y, z, w = quaternion(matrix)
        return make["geometry_msgs/msg/TransformStamped"](
            header=header(time, parent),
            child_frame_id=child,
            transform=make["geometry_msgs/msg/Transform"](
                translation=make["geometry_msgs/msg/Vector3"](*map(float, matrix[:3, 3])),
                rotation=make["geometry_msgs/msg/Quaternion"](x, y, z, w),
            ),
        )

    with Writer(path, version=8) as writer:

        def topic(name: str, kind: str) -> Any:
            connection = writer.add_connection(name, kind, typestore=types)

            def write(time: float, message: Any) -> None:
                writer.write(connection, round(time * 1e9), types.serialize_cdr(message, kind))

            return write

        image_kind = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
        colour = topic(f"{COLOUR}/compressed" if compressed else COLOUR, image_kind)
        depth = topic(DEPTH, "sensor_msgs/msg/Image")
        info = topic("/camera/color/camera_info", "sensor_msgs/msg/CameraInfo")
        tf, tf_static = (topic(name, "tf2_msgs/msg/TFMessage") for name in ("/tf", "/tf_static"))
        if with_tf:
            mount = transform(0.0, "base_link", CAMERA, BODY_TO_CAMERA)
            tf_static(1000.0, make["tf2_msgs/msg/TFMessage"](transforms=[mount]))
        for at, pose in enumerate(poses(13)[1 : number + 1]):
            time = 1000 + RATE_S * at
            encoded = walk(12)[at][0]
            pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
            z = cast(pose, NARROW)
            body = pose @ np.linalg.inv(BODY_TO_CAMERA)
            for near in (-0.25, 0.25) if with_tf else ():
                tf(
                    max(1000.0, time + near),
                    make["tf2_msgs/msg/TFMessage"](
                        transforms=[transform(time + near, "odom", "base_link", body)]
                    ),
                )
            if compressed:
                message = make["sensor_msgs/msg/CompressedImage"](
                    header=header(time, CAMERA), format="rgb8; png", data=np.frombuffer(encoded, np.uint8)
                )
            else:
                message = picture(make, header(time, CAMERA), pixels[..., ::-1], "bgr8")
            colour(time + 0.01, message)
            values = z.astype(np.float32) if metres else np.round(z * 1000).astype(np.uint16)
            depth(
                time + 0.012,
                picture(make, header(time + 0.002, CAMERA), values, "32FC1" if metres else "16UC1"),
            )
            info(time + 0.013, camera_info(make, header(time, CAMERA)))
    return path


def picture(make: Any, header: Any, pixels: Any, encoding: str) -> Any:
    """Return an Image message whose rows are padded by 8 bytes."""
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, 8)))
    return make["sensor_msgs/msg/Image"](
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=padded.shape[1],
        data=padded.reshape(-1),
    )


def camera_info(make: Any, header: Any) -> Any:
    fx, fy, cx, cy = (INTRINSICS[name] for name in ("fx", "fy", "cx", "cy"))
    zeros = dict.fromkeys(("x_offset", "y_offset", "height", "width"), 0)
    return make["sensor_msgs/msg/CameraInfo"](
        header=header,
        height=NARROW.height,
        width=NARROW.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0]),
        r=np.eye(3).reshape(-1),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1.0, 0]),
        binning_x=0,
        binning_y=0,
        roi=make["sensor_msgs/msg/RegionOfInterest"](**zeros, do_rectify=False),
    )
