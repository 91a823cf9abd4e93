"""A robot's requests on one connection that is kept alive, and how long they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import httpx

from bench.episodes.frames import INTRINSICS, WalkFrame, files

TIMEOUT_S = 300
MERGE = {"method": "tosa", "keep_ratio": 0.25}
BUDGET = 145
"""Visual tokens of one merged frame of room-tiny with its separator: the same for one frame and for many."""
QUESTION = {"question": "How many chairs are in the room?", "max_new_tokens": 4}
CAMERA = {"convention": "opencv", "intrinsics": INTRINSICS, "depth_scale": 1000}
FIRST_PIECE = "data: "


class Robot:
    """Send requests with httpx and time them at the client, in milliseconds."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def begin(self, **rule: Any) -> str:
        """Begin an episode and return its id."""
        body = {"merge_frames": "cover", "max_visual_tokens": BUDGET, **CAMERA, **MERGE, **rule}
        return self._client.post("/episodes", json=body).raise_for_status().json()["id"]

    def push(self, episode: str, body: Mapping[str, object]) -> tuple[float, dict[str, Any]]:
        """Push a frame; return the time from the call to the parsed answer, and the answer."""
        return self._timed(f"/episodes/{episode}/frames", body)

    def encode(self, frame: WalkFrame) -> dict[str, Any]:
        """Ask about one frame alone, encoded anew; return the answer."""
        return self._timed("/vqa", alone([frame]))[1]

    def first_token(self, path: str, body: Mapping[str, object]) -> float:
        """Ask, and return the time from the call to the first piece of the answer."""
        began = perf_counter()
        with self._client.stream("POST", path, json={**body, "stream": True}) as response:
            if response.is_error:
                response.read()
            response.raise_for_status()
            lines = response.iter_lines()
            for line in lines:
                if line.startswith(FIRST_PIECE):
                    break
            taken = 1000 * (perf_counter() - began)
            for _ in lines:
                pass
        return taken

    def state(self, episode: str) -> dict[str, Any]:
        """Return what the service says about an episode."""
        return self._client.get(f"/episodes/{episode}").raise_for_status().json()

    def end(self, episode: str) -> None:
        """Delete an episode."""
        self._client.delete(f"/episodes/{episode}").raise_for_status()

    def _timed(self, path: str, body: Mapping[str, object]) -> tuple[float, dict[str, Any]]:
        began = perf_counter()
        answer = self._client.post(path, json=body).raise_for_status().json()
        return 1000 * (perf_counter() - began), answer


def alone(frames: list[WalkFrame], **more: object) -> dict[str, object]:
    """Return a question about one frame without an episode, encoded anew."""
    return {**QUESTION, **MERGE, "depth_scale": 1000, "cache": False, **files(frames), **more}


def at_once(frames: list[WalkFrame], **more: object) -> dict[str, object]:
    """Return a question that brings all its frames, merged as an episode merges them, encoded anew."""
    poses = [frame.pose.tolist() for frame in frames]
    own = {"merge_frames": "cover", "max_visual_tokens": BUDGET, "poses": poses, **CAMERA}
    return alone(frames, **own, **more)


@contextmanager
def robot(url: str) -> Iterator[Robot]:
    """Connect to a service."""
    with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
        yield Robot(client)
