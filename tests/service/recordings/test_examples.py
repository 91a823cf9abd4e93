"""The examples for robots: a recording that is pushed, and a node of ROS 2 against a stub of its few calls.

ROS itself is not installed here: the stub has the signatures of rclpy's documentation, and nothing more.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples import push_walk
from tests.depth.geometry.worlds import cast
from tests.service.conftest import wait_for
from tests.service.episodes import INTRINSICS, walk
from tests.service.live import Live, live
from tests.service.recordings.written import bag, quaternion, scannet
from tests.tosa.frames.walks import NARROW, poses
from tosa_vqa_client import Client


@pytest.fixture(scope="module")
def service(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint, frame_cache_mib=16, max_queue=4) as served:
        yield served


def url(service: Live) -> str:
    return f"http://127.0.0.1:{service.port}"


@pytest.mark.parametrize("kind", ["folder", "bag"])
def test_a_recording_is_pushed_and_asked_about(
    service: Live, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "folder":
        words = [str(scannet(tmp_path / "walk", 3)), "how many cubes ?", "--convention", "opencv"]
    else:
        words = [str(bag(tmp_path / "walk", 3)), "how many cubes ?"]
    push_walk.main([*words, "--tokens", "12", "--url", url(service)])
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "tokens have a place" in line]) == 3
    assert all(" 0 of" not in line for line in lines)
    assert lines[-1].startswith("how many cubes ?") and lines[-1].endswith("(12 tokens of 3 frames)")
    assert service.client.get("/episodes").json()["episodes"] == []


def test_what_cannot_be_read_or_pushed_is_said_in_a_sentence(
    service: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        push_walk.main([str(tmp_path), "?"])
    assert "holds no frames as this program knows them" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="convention"):
        push_walk.main([str(scannet(tmp_path / "walk", 1)), "?", "--url", url(service)])


class StubNode:
    """What the example calls of rclpy.node.Node."""

    def __init__(self, name: str) -> None:
        self.name, self.called = name, dict[str, Callable[[Any], None]]()
        self.published, self.logged = list[str](), list[str]()

    def declare_parameter(self, name: str, value: Any) -> Any:
        return SimpleNamespace(name=name, value={"hz": 2.0, "max_visual_tokens": 20}.get(name, value))

    def create_publisher(self, kind: Any, topic: str, depth: int) -> Any:
        return SimpleNamespace(publish=lambda message: self.published.append(message.data))

    def create_subscription(self, kind: Any, topic: str, callback: Callable[[Any], None], qos: Any) -> None:
        self.called[topic] = callback

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=self.logged.append, error=self.logged.append)


class NoTransform(Exception):
    pass


class StubBuffer:
    """What the example calls of tf2_ros.Buffer."""

    known: dict[float, Any]

    def lookup_transform(self, target: str, source: str, time: Any, timeout: Any) -> Any:
        assert (target, source) == ("map", "optical")
        if time not in StubBuffer.known:
            raise NoTransform("extrapolation into the future")
        x, y, z, w = quaternion(StubBuffer.known[time])
        at = SimpleNamespace(**dict(zip("xyz", map(float, StubBuffer.known[time][:3, 3]), strict=True)))
        rotation = SimpleNamespace(x=x, y=y, z=z, w=w)
        return SimpleNamespace(transform=SimpleNamespace(translation=at, rotation=rotation))


@pytest.fixture
def node(service: Live, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    message = type("Message", (SimpleNamespace,), {})
    stubs = {
        "rclpy": {},
        "rclpy.duration": {"Duration": lambda seconds: seconds},
        "rclpy.node": {"Node": StubNode},
        "rclpy.qos": {"qos_profile_sensor_data": None},
        "rclpy.time": {"Time": SimpleNamespace(from_msg=lambda stamp: stamp.sec + 1e-9 * stamp.nanosec)},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"CameraInfo": message, "Image": message},
        "std_msgs": {},
        "std_msgs.msg": {"String": message},
        "tf2_ros": {
            "Buffer": StubBuffer,
            "TransformException": NoTransform,
            "TransformListener": lambda buffer, node: (buffer, node),
        },
    }
    for name, held in stubs.items():
        module = ModuleType(name)
        module.__dict__.update(held)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "examples.ros2_node", raising=False)
    example = importlib.import_module("examples.ros2_node")
    StubBuffer.known = {}
    with Client(url(service)) as client:
        made = example.EpisodeNode(client)
        yield made
        made.close()
    del sys.modules["examples.ros2_node"]


def image_message(time: float, pixels: Any, encoding: str) -> Any:
    stamp = SimpleNamespace(sec=int(time), nanosec=round(time % 1 * 1e9))
    data = np.ascontiguousarray(pixels)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp, frame_id="optical"),
        height=data.shape[0],
        width=data.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=data.nbytes // data.shape[0],
        data=data.tobytes(),
    )


def see(node: Any, at: int, time: float) -> None:
    """Let the node receive depth and picture of a frame, and wait until it is pushed."""
    depth = np.round(cast(poses(13)[1 + at], NARROW) * 1000).astype(np.uint16)
    node.called["depth"](image_message(time + 0.01, depth, "16UC1"))
    pixels = np.asarray(Image.open(io.BytesIO(walk(12)[at][0])).convert("RGB"))
    node.called["image"](image_message(time, pixels, "rgb8"))
    if node._pushing is not None:
        wait_for(node._pushing.done)


def camera_info() -> Any:
    k = [INTRINSICS["fx"], 0, INTRINSICS["cx"], 0, INTRINSICS["fy"], INTRINSICS["cy"], 0, 0, 1]
    return SimpleNamespace(k=k, width=NARROW.width, height=NARROW.height)


def test_the_node_pushes_frames_with_poses_and_answers(node: Any, service: Live) -> None:
    see(node, 0, 100.0)  # before the intrinsics are known
    assert node._episode is None
    node.called["camera_info"](camera_info())
    StubBuffer.known = {time: poses(13)[1 + at] for at, time in enumerate((100.0, 100.6, 101.2))}
    for at, time in enumerate((100.0, 100.6, 100.8, 101.2)):  # the third comes too soon
        see(node, min(at, 2), time)
    state = service.client.get(f"/episodes/{node._episode}").json()
    assert state["frames"] == 3 and all(frame["placed"] > 0 for frame in state["kept"])
    assert [frame["timestamp"] for frame in state["kept"]] == [100.0, 100.6, 101.2]
    assert state["fields"]["convention"] == "ros_optical" and state["max_visual_tokens"] == 20
    assert node.logged == []
    node.called["~/question"](SimpleNamespace(data="how many cubes ?"))
    wait_for(lambda: len(node.published) == 1)
    assert not node.published[0].startswith("no answer")


def test_the_node_says_what_it_lacks(node: Any, service: Live) -> None:
    node.called["camera_info"](camera_info())
    node.called["~/question"](SimpleNamespace(data="how many cubes ?"))
    wait_for(lambda: len(node.published) == 1)
    assert node.published[0].startswith("no answer: no frame was pushed yet")
    see(node, 0, 100.0)
    assert node.logged[0] == "no pose: extrapolation into the future"
    assert service.client.get(f"/episodes/{node._episode}").json()["kept"][0]["placed"] == 0
