"""ROS bags: pictures, aligned depth, camera_info and tf, read by the package rosbags; no ROS is needed.

Messages are read twice: their times first, then those that are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.recordings.pictures import colour_file, depth_file
from service.recordings.recording import RecordedFrame, Walk, WalkError, nearest
from service.recordings.transforms import Transform, TransformTree

NEAR_S = 0.05
"""Depth so far from a picture in time belongs to it: cameras that are not triggered together."""
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE, TF_TYPE = "sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage"
KINDS = ("image", "depth", "camera_info")


@dataclass(frozen=True)
class Topics:
    """Name the topics of a walk; None: there is none."""

    image: str
    depth: str | None
    camera_info: str | None


@dataclass(frozen=True)
class _Stamped:
    """Say when and where a message was recorded: its own time in seconds, and its number in its topic."""

    time: float
    number: int


def read_bag(path: Path, named: Mapping[str, str] | None = None, world: str | None = None) -> Walk:
    """Read a bag as a walk. Raises WalkError, OSError.

    named: topics by image, depth and camera_info, where they cannot be guessed. world: frame that stands
    still, in which poses are; by default map, odom or world, else the root of the tree.
    """
    with _opened(path) as reader:
        topics = choose_topics({topic: one.msgtype for topic, one in reader.topics.items()}, named or {})
        images, frame_id = _stamps(reader, topics.image)
        depths = [] if topics.depth is None else _stamps(reader, topics.depth)[0]
        fields, notes = _camera(reader, topics)
        tree = _transforms(reader)
    if not images:
        raise WalkError(f"{path}: {topics.image} holds no message")
    depth_times = [one.time for one in depths]
    if topics.depth is not None:
        images = [one for one in images if nearest(depth_times, one.time, NEAR_S) is not None]
        if not images:
            raise WalkError(f"{path}: no picture of {topics.image} has depth within {NEAR_S} s")
    above = world or tree.fixed(frame_id)
    if above is None:
        notes.append(f"no transform of {frame_id} is in the bag: what frames show has no place")
    elif world is not None and world.lstrip("/") not in tree.above(frame_id):
        known = ", ".join(tree.above(frame_id)) or "nothing"
        raise WalkError(f"{path}: {world} is not above {frame_id} in the transforms, but {known}")

    def read(numbers: Sequence[int]) -> Iterator[RecordedFrame]:
        wanted = [images[at] for at in numbers]
        pairs = [None if not depths else depths[_near(depth_times, one.time)] for one in wanted]
        with _opened(path) as reader:
            found = _messages(reader, topics.image, [one.number for one in wanted])
            deep = iter(())
            if topics.depth is not None:
                deep = _messages(reader, topics.depth, [one.number for one in pairs if one is not None])
            held: tuple[int, bytes] | None = None  # two pictures may share one depth
            for one, pair, message in zip(wanted, pairs, found, strict=True):
                if pair is not None and (held is None or held[0] != pair.number):
                    held = pair.number, depth_file(next(deep))[0]
                pose = None if above is None else tree.pose(frame_id, above, one.time)
                yield RecordedFrame(
                    f"{topics.image} at {one.time:.3f} s",
                    colour_file(message),
                    None if held is None else held[1],
                    {"timestamp": one.time, **({} if pose is None else {"pose": _as_sent(pose)})},
                )

    return Walk(path, len(images), fields, read, tuple(notes))


def choose_topics(types: Mapping[str, str | None], named: Mapping[str, str]) -> Topics:
    """Choose the topics of pictures, depth and intrinsics by their types and names. Raises WalkError."""
    for kind, topic in named.items():
        if kind not in KINDS:
            raise WalkError(f"{kind} is no kind of topic: {', '.join(KINDS)}")
        if topic not in types:
            raise WalkError(f"the bag has no topic {topic}: {', '.join(sorted(types))}")
    pictures = [topic for topic, kind in types.items() if kind in IMAGE_TYPES]
    depths = [topic for topic in pictures if "depth" in topic]
    colours = [topic for topic in pictures if topic not in depths and "infra" not in topic]
    aligned = [topic for topic in depths if "aligned" in topic or "registered" in topic]
    image = named.get("image") or _only("image", _uncompressed(colours), types)
    if image is None:
        raise WalkError(f"the bag has no pictures: {', '.join(sorted(types))}")
    depth = named.get("depth") or _only("depth", _uncompressed(aligned or depths), types)
    beside = f"{_base(image).rpartition('/')[0]}/camera_info"
    info = named.get("camera_info") or (beside if types.get(beside) == INFO_TYPE else None)
    return Topics(image, depth, info)


def _uncompressed(topics: Sequence[str]) -> list[str]:
    """Leave out compressed twins of topics that are there."""
    return [topic for topic in topics if _base(topic) == topic or _base(topic) not in topics]


def _base(topic: str) -> str:
    for end in ("/compressedDepth", "/compressed"):
        topic = topic.removesuffix(end)
    return topic


def _only(kind: str, topics: Sequence[str], types: Mapping[str, str | None]) -> str | None:
    if len(topics) > 1:
        raise WalkError(f"several topics may be the {kind}: {', '.join(sorted(topics))}; name one")
    return topics[0] if topics else None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise WalkError("bags need the package rosbags: install the extra named bag") from None
    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
        reader.open()
    except AnyReaderError as error:
        raise WalkError(f"{path} cannot be read as a bag: {error}") from None
    try:
        yield reader
    finally:
        reader.close()


def _connections(reader: Any, topic: str) -> list[Any]:
    return [one for one in reader.connections if one.topic == topic]


def _stamps(reader: Any, topic: str) -> tuple[list[_Stamped], str]:
    """Return the messages of a topic by time, and the frame of its last one."""
    found, frame_id = list[_Stamped](), ""
    for number, (connection, _, data) in enumerate(reader.messages(connections=_connections(reader, topic))):
        header = reader.deserialize(data, connection.msgtype).header
        frame_id = header.frame_id
        found.append(_Stamped(_seconds(header.stamp), number))
    return sorted(found, key=lambda one: one.time), frame_id


def _messages(reader: Any, topic: str, numbers: Sequence[int]) -> Iterator[Any]:
    """Yield the messages of these numbers; numbers ascend where recordings are in the order of time."""
    wanted, kept = set(numbers), dict[int, Any]()
    order = iter(dict.fromkeys(numbers))
    due = next(order, None)
    for number, (connection, _, data) in enumerate(reader.messages(connections=_connections(reader, topic))):
        if number in wanted:
            kept[number] = reader.deserialize(data, connection.msgtype)
        while due is not None and due in kept:
            yield kept.pop(due)
            due = next(order, None)
        if due is None:
            return


def _camera(reader: Any, topics: Topics) -> tuple[dict[str, Any], list[str]]:
    """Return the fields that the topics say of all frames, and notes."""
    fields: dict[str, Any] = {"convention": "ros_optical"}
    notes = list[str]()
    if topics.depth is not None:
        fields["depth_scale"] = _scale(reader, topics.depth)
    info = None if topics.camera_info is None else _first(reader, topics.camera_info)
    if info is None:
        return fields, [*notes, f"no camera_info is recorded beside {topics.image}: give --intrinsics"]
    is_rectified = (
        "rect" in topics.image.rpartition("/")[2] or "rect" in _base(topics.image).rpartition("/")[2]
    )
    raw = _numbers(info, "p" if is_rectified else "k")
    fx, fy, cx, cy = (raw[0], raw[5], raw[2], raw[6]) if is_rectified else (raw[0], raw[4], raw[2], raw[5])
    fields["intrinsics"] = {
        "fx": fx,
        "fy": fy,
        "cx": cx,
        "cy": cy,
        "width": int(info.width),
        "height": int(info.height),
    }
    if not is_rectified and any(abs(value) > 1e-3 for value in _numbers(info, "d")):
        notes.append(f"{topics.image} is not rectified: places near the edge of pictures are off")
    return fields, notes


def _numbers(info: Any, name: str) -> list[float]:
    """Return a field of camera_info, which ROS 2 writes small and ROS 1 large."""
    return [float(value) for value in getattr(info, name, getattr(info, name.upper(), ()))]


def _scale(reader: Any, topic: str) -> float:
    message = _first(reader, topic)
    return 1000.0 if message is None else depth_file(message)[1]


def _first(reader: Any, topic: str) -> Any | None:
    for connection, _, data in reader.messages(connections=_connections(reader, topic)):
        return reader.deserialize(data, connection.msgtype)
    return None


def _transforms(reader: Any) -> TransformTree:
    tree = TransformTree()
    connections = [one for one in reader.connections if one.msgtype == TF_TYPE]
    for connection, _, data in reader.messages(connections=connections) if connections else ():
        is_static = connection.topic.endswith("tf_static")
        for one in reader.deserialize(data, connection.msgtype).transforms:
            at, q = one.transform.translation, one.transform.rotation
            tree.add(
                one.header.frame_id,
                one.child_frame_id,
                _seconds(one.header.stamp),
                Transform(np.array([at.x, at.y, at.z]), np.array([q.x, q.y, q.z, q.w])),
                is_static,
            )
    return tree


def _near(times: Sequence[float], time: float) -> int:
    found = nearest(times, time, NEAR_S)
    assert found is not None, "pictures without depth were left out"
    return found


def _seconds(stamp: Any) -> float:
    return stamp.sec + 1e-9 * stamp.nanosec


def _as_sent(pose: Transform) -> dict[str, list[float]]:
    return {"position": pose.position.tolist(), "quaternion": pose.quaternion.tolist()}
