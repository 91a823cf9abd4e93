"""ROS 2 bags, written by the package that reads them: pictures, depth, intrinsics, and poses from tf."""

from __future__ import annotations

import builtins
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depth.geometry import read_pose
from service.recordings.bag import choose_topics, read_bag
from service.recordings.pictures import colour_file, depth_file
from service.recordings.recording import WalkError
from service.recordings.transforms import Transform, TransformTree
from tests.service.episodes import INTRINSICS, walk
from tests.service.recordings.written import CAMERA, COLOUR, DEPTH, RATE_S, bag
from tests.tosa.frames.walks import NARROW, poses

IMAGE, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CameraInfo"
PACKED = "sensor_msgs/msg/CompressedImage"


@pytest.mark.parametrize(("metres", "compressed"), [(False, False), (True, True)])
def test_a_bag_holds_the_frames_that_were_recorded(tmp_path: Path, metres: bool, compressed: bool) -> None:
    found = read_bag(bag(tmp_path / "walk", 4, metres, compressed))
    assert found.number == 4 and found.notes == ()
    assert found.fields["convention"] == "ros_optical"
    assert found.fields["depth_scale"] == (1 if metres else 1000)
    camera = found.fields["intrinsics"]
    assert {name: camera[name] for name in INTRINSICS} == INTRINSICS
    assert (camera["height"], camera["width"]) == (NARROW.height, NARROW.width)
    frames = list(found.frames(9))
    for at, (frame, (image, depth, _)) in enumerate(zip(frames, walk(12), strict=False)):
        assert np.array_equal(_pixels(frame.image), _pixels(image))
        assert frame.depth is not None
        file = io.BytesIO(frame.depth)
        read = np.load(file) * 1000 if metres else np.asarray(Image.open(file))
        apart = np.abs(read.astype(float) - np.asarray(Image.open(io.BytesIO(depth))))
        assert apart.max() <= (0.501 if metres else 0)
        assert frame.fields["timestamp"] == pytest.approx(1000 + RATE_S * at)
        own = read_pose(frame.fields["pose"], "ros_optical")
        assert np.allclose(own, poses(13)[1 + at], atol=1e-6)
    assert [frame.fields["timestamp"] for frame in found.frames(2)] == pytest.approx([1000, 1001.5])


def _pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_bag_without_transforms_has_no_poses_and_says_so(tmp_path: Path) -> None:
    found = read_bag(bag(tmp_path / "walk", 2, with_tf=False))
    assert found.notes == (f"no transform of {CAMERA} is in the bag: what frames show has no place",)
    assert all("pose" not in frame.fields for frame in found.frames(2))


def test_what_is_wrong_with_a_bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bag(tmp_path / "walk", 2)
    with pytest.raises(
        WalkError, match="moon is not above camera_color_optical_frame in the transforms, but base_link, odom"
    ):
        read_bag(path, world="moon")
    with pytest.raises(WalkError, match="the bag has no topic /other"):
        read_bag(path, {"image": "/other"})
    (tmp_path / "text.mcap").write_text("no bag")
    with pytest.raises(WalkError, match="cannot be read as a bag"):
        read_bag(tmp_path / "text.mcap")
    with pytest.raises(FileNotFoundError):
        read_bag(tmp_path / "nowhere")
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("rosbags"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(WalkError, match="install the extra named bag"):
        read_bag(path)


def test_topics_are_chosen_by_type_and_name() -> None:
    real = {
        COLOUR: IMAGE,
        f"{COLOUR}/compressed": PACKED,
        DEPTH: IMAGE,
        f"{DEPTH}/compressedDepth": PACKED,
        "/camera/depth/image_rect_raw": IMAGE,
        "/camera/infra1/image_rect_raw": IMAGE,
        "/camera/color/camera_info": INFO,
        "/camera/depth/camera_info": INFO,
        "/tf": "tf2_msgs/msg/TFMessage",
    }
    chosen = choose_topics(real, {})
    assert (chosen.image, chosen.depth, chosen.camera_info) == (COLOUR, DEPTH, "/camera/color/camera_info")
    packed = {topic: kind for topic, kind in real.items() if topic not in (COLOUR, DEPTH)}
    chosen = choose_topics(packed, {})
    assert (chosen.image, chosen.depth) == (f"{COLOUR}/compressed", f"{DEPTH}/compressedDepth")
    assert chosen.camera_info == "/camera/color/camera_info"
    two = {"/left/image_raw": IMAGE, "/right/image_raw": IMAGE}
    with pytest.raises(WalkError, match="several topics may be the image: /left/image_raw, /right/image_raw"):
        choose_topics(two, {})
    alone = choose_topics(two, {"image": "/left/image_raw"})
    assert (alone.image, alone.depth, alone.camera_info) == ("/left/image_raw", None, None)
    with pytest.raises(WalkError, match="color is no kind of topic: image, depth, camera_info"):
        choose_topics(two, {"color": "/left/image_raw"})
    with pytest.raises(WalkError, match="the bag has no pictures"):
        choose_topics({"/tf": "tf2_msgs/msg/TFMessage"}, {})


def turn(angle: float, at: tuple[float, float, float]) -> Transform:
    return Transform(np.array(at), np.array([0, 0, np.sin(angle / 2), np.cos(angle / 2)]))


def test_a_pose_between_two_transforms_is_between_them() -> None:
    tree = TransformTree()
    tree.add("odom", "base", 2.0, turn(np.pi / 2, (1, 0, 0)), False)
    tree.add("odom", "base", 1.0, turn(0, (0, 0, 0)), False)
    tree.add("/base", "camera", 0.0, turn(0, (0, 2, 0)), True)
    half = tree.pose("camera", "odom", 1.5)
    assert half is not None
    assert np.allclose(half.quaternion, turn(np.pi / 4, (0, 0, 0)).quaternion)
    assert np.allclose(half.position, (0.5 - 2 * np.sin(np.pi / 4), 2 * np.cos(np.pi / 4), 0))
    assert tree.fixed("camera") == "odom" and tree.above("camera") == ["base", "odom"]
    last = tree.pose("camera", "odom", 2.05)
    assert last is not None and np.allclose(last.position, (-1, 0, 0))
    assert tree.pose("camera", "odom", 2.5) is None and tree.pose("camera", "odom", 0.5) is None
    assert tree.pose("camera", "map", 1.5) is None and tree.fixed("odom") is None
    tree.add("map", "odom", 0.0, turn(0, (0, 0, 1)), True)
    assert tree.fixed("camera") == "map"


def test_the_shorter_way_is_taken_between_two_rotations() -> None:
    tree = TransformTree()
    for time, sign in ((1.0, 1), (2.0, -1)):
        one = turn(0.2 * time, (0, 0, 0))
        tree.add("odom", "base", time, Transform(one.position, sign * one.quaternion), False)
    half = tree.pose("base", "odom", 1.5)
    assert half is not None and np.allclose(half.quaternion, turn(0.3, (0, 0, 0)).quaternion)


def test_transforms_in_a_circle_end() -> None:
    tree = TransformTree()
    tree.add("a", "b", 0.0, turn(0, (0, 0, 0)), True)
    tree.add("b", "a", 0.0, turn(0, (0, 0, 0)), True)
    assert tree.pose("a", "odom", 0.0) is None and tree.above("a") == ["b", "a"]


class Message:
    def __init__(self, encoding: str, pixels: Any, **more: Any) -> None:
        rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
        self.encoding, self.data, self.step = encoding, rows.tobytes(), rows.nbytes // len(rows)
        self.height, self.width, self.is_bigendian = pixels.shape[0], pixels.shape[1], 0
        self.__dict__.update(more)


def test_pixels_of_every_encoding() -> None:
    colours = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    for encoding, expected in (
        ("rgba8", colours[..., :3]),
        ("bgra8", colours[..., 2::-1]),
        ("rgb8", None),
        ("bgr8", None),
    ):
        pixels = colours if expected is not None else colours[..., :3]
        expected = expected if expected is not None else pixels[..., :: 1 if encoding == "rgb8" else -1]
        assert np.array_equal(_pixels(colour_file(Message(encoding, pixels))), expected)
    grey = Image.open(io.BytesIO(colour_file(Message("mono8", colours[..., 0]))))
    assert np.array_equal(np.asarray(grey), colours[..., 0])
    deep = np.array([[1, 500], [60_000, 0]], ">u2")
    data, scale = depth_file(Message("16UC1", deep, is_bigendian=1))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), deep) and scale == 1000


@pytest.mark.parametrize(
    ("read", "message", "said"),
    [
        (
            colour_file,
            Message("bayer_rggb8", np.zeros((2, 2), np.uint8)),
            "encoding bayer_rggb8 are not known",
        ),
        (colour_file, Message("rgb8", np.zeros((2, 2, 3), np.uint8), height=9), "too few for 2 x 9"),
        (depth_file, Message("8UC1", np.zeros((2, 2), np.uint8)), "encoding 8UC1 is not known"),
        (
            depth_file,
            Message("", np.zeros((2, 2), np.uint8), format="32FC1; rvl"),
            "compressed depth of format",
        ),
    ],
)
def test_what_is_wrong_with_a_message(read: Any, message: Any, said: str) -> None:
    with pytest.raises(WalkError, match=said):
        read(message)
