"""A ROS 2 node that pushes what a robot sees to an episode, and answers questions about it.

tosa-vqa serve; python examples/ros2_node.py --ros-args -p world_frame:=odom \\
  -r image:=/camera/color/image_raw -r depth:=/camera/aligned_depth_to_color/image_raw \\
  -r camera_info:=/camera/color/camera_info
ros2 topic pub --once /tosa_vqa/question std_msgs/String "data: how many chairs are there?"
ros2 topic echo /tosa_vqa/answer
"""

# ROS is no package of an index: where it is not installed, these modules are not known.
# pyright: reportMissingImports=false

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from tf2_ros import Buffer, TransformException, TransformListener

from service.recordings.pictures import colour_file, depth_file
from tosa_vqa_client import Client, ClientError

NEAR_S = 0.05
"""Depth so far from a picture in time belongs to it."""
WAIT_S = 0.2
"""Transforms come a little later than the picture that they belong to."""


class EpisodeNode(Node):
    """Push at most `hz` frames a second, one at a time: a slow service makes frames fewer, not late."""

    def __init__(self, service: Client | None = None) -> None:
        super().__init__("tosa_vqa")
        given = {
            name: self.declare_parameter(name, default).value
            for name, default in (
                ("url", "http://127.0.0.1:8000"),
                ("world_frame", "map"),
                ("hz", 2.0),
                ("merge_frames", "cover"),
                ("max_visual_tokens", 144),
            )
        }
        self._world, self._pause_s = given["world_frame"], 1 / given["hz"]
        self._rule = {name: given[name] for name in ("merge_frames", "max_visual_tokens")}
        self._service = service or Client(given["url"], timeout_s=30)
        self._worker = ThreadPoolExecutor(1)
        self._pushing: Future[None] | None = None
        self._episode: str | None = None
        self._camera: CameraInfo | None = None
        self._depth: Image | None = None
        self._last_s = float("-inf")
        self._transforms = Buffer()
        self._listener = TransformListener(self._transforms, self)
        self._answers = self.create_publisher(String, "~/answer", 10)
        self.create_subscription(CameraInfo, "camera_info", self._on_camera, qos_profile_sensor_data)
        self.create_subscription(Image, "depth", self._on_depth, qos_profile_sensor_data)
        self.create_subscription(Image, "image", self._on_image, qos_profile_sensor_data)
        self.create_subscription(String, "~/question", self._on_question, 10)

    def close(self) -> None:
        """Finish the frame in flight, and end the episode."""
        self._worker.shutdown(wait=True)
        if self._episode is not None:
            self._service.end_episode(self._episode)

    def _on_camera(self, message: CameraInfo) -> None:
        self._camera = message

    def _on_depth(self, message: Image) -> None:
        self._depth = message

    def _on_image(self, message: Image) -> None:
        now_s = _seconds(message.header.stamp)
        is_busy = self._pushing is not None and not self._pushing.done()
        if is_busy or self._camera is None or self._depth is None or now_s < self._last_s + self._pause_s:
            return
        if abs(_seconds(self._depth.header.stamp) - now_s) > NEAR_S:
            return
        self._last_s = now_s
        self._pushing = self._worker.submit(self._push, message, self._depth)

    def _pose(self, message: Image) -> dict[str, list[float]] | None:
        """Return the pose of the camera when the picture was taken, in the world."""
        try:
            found = self._transforms.lookup_transform(
                self._world,
                message.header.frame_id,
                Time.from_msg(message.header.stamp),
                Duration(seconds=WAIT_S),
            )
        except TransformException as error:
            self.get_logger().warning(f"no pose: {error}")
            return None
        at, q = found.transform.translation, found.transform.rotation
        return {"position": [at.x, at.y, at.z], "quaternion": [q.x, q.y, q.z, q.w]}

    def _push(self, image: Image, depth: Image) -> None:
        """Push a frame, in the worker's thread, so that transforms come in meanwhile."""
        frame: dict[str, Any] = {"timestamp": _seconds(image.header.stamp)}
        pose = self._pose(image)
        if pose is not None:  # without one, what the frame shows has no place
            frame["pose"] = pose
        try:
            data, scale = depth_file(depth)
            if self._episode is None:
                self._episode = self._begun(scale)
            taken = self._service.push_frame(self._episode, colour_file(image), data, **frame)
            for note in taken.notes:
                self.get_logger().warning(note.sentence)
        except (ValueError, ClientError) as error:
            self.get_logger().error(str(error))

    def _begun(self, depth_scale: float) -> str:
        """Begin the episode; the axes of ROS's optical frames, and the intrinsics of camera_info."""
        info = self._camera
        assert info is not None, "frames wait for camera_info"
        k = [float(value) for value in info.k]
        intrinsics = {
            "fx": k[0],
            "fy": k[4],
            "cx": k[2],
            "cy": k[5],
            "width": info.width,
            "height": info.height,
        }
        rule: Any = {
            **self._rule,
            "convention": "ros_optical",
            "intrinsics": intrinsics,
            "depth_scale": depth_scale,
        }
        return self._service.begin_episode(**rule).id

    def _on_question(self, message: String) -> None:
        self._worker.submit(self._answer, message.data)

    def _answer(self, question: str) -> None:
        try:
            if self._episode is None:
                raise ValueError("no frame was pushed yet")
            answer = self._service.ask_episode(self._episode, question).answer
        except (ValueError, ClientError) as error:
            answer = f"no answer: {error}"
        self._answers.publish(String(data=answer))


def _seconds(stamp: Any) -> float:
    return stamp.sec + 1e-9 * stamp.nanosec


def main() -> None:
    rclpy.init()
    node = EpisodeNode()
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
