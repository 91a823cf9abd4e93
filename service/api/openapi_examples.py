"""Requests for the generated documentation, as JSON; sent as they stand, they are answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAGCAIAAABxZ0isAAAAG0lEQVR42mNkYPivwPABE7EwaH1gYMCC6CEBAMYqLtdEP1drAAAAAElFTkSu"
    "QmCC"
)
"""A colour picture of 8 x 6 pixels, as base64 of a PNG."""
DEPTH = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAGEAAAAACL/lxkAAAANUlEQVR42mNgVmBuYX7B4sOygVWEtYL1DgvjL4ZfDL8YoZjhF2EBJsZfMMjw"
    "i/EXI7IKCAkA5ysrRsE11tYAAAAASUVORK5CYII="
)
"""Depth of the same view in millimetres, as base64 of a 16-bit PNG."""

Examples = Mapping[str, Any]
_QUESTION = {"question": "How many chairs are in the room?", "images": [IMAGE], "max_new_tokens": 16}
_IMAGE_PART = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}}
_DEPTH_PART = {"type": "depth_url", "depth_url": {"url": f"data:image/png;base64,{DEPTH}"}}
_TEXT_PART = {"type": "text", "text": "How many chairs are in the room?"}


def _example(summary: str, value: Any) -> dict[str, Any]:
    return {"summary": summary, "value": value}


VQA: Examples = {
    "depth": _example(
        "Depth steers the merging",
        {**_QUESTION, "depths": [DEPTH], "depth_scale": 1000, "method": "tosa", "keep_ratio": 0.5},
    ),
    "plain": _example("No merging", {**_QUESTION, "method": "none"}),
    "stream": _example("The answer as it comes", {**_QUESTION, "stream": True}),
}
COMPARE: Examples = {
    "methods": _example(
        "Two methods against no merging",
        {
            **_QUESTION,
            "depths": [DEPTH],
            "specs": [
                {"method": "none"},
                {"method": "tome", "keep_ratio": 0.5},
                {"method": "tosa", "keep_ratio": 0.5},
            ],
        },
    ),
}
INSPECT: Examples = {
    "file": _example("A depth file alone", {"depths": [DEPTH], "depth_scale": 1000}),
    "view": _example(
        "With its image, and a picture", {"depths": [DEPTH], "images": [IMAGE], "picture": True}
    ),
}
_POSE = {"position": [0, 0, 1.5], "quaternion": [0, 0, 0, 1]}
EPISODE: Examples = {
    "cover": _example(
        "Cover the scene with 144 tokens",
        {
            "merge_frames": "cover",
            "max_visual_tokens": 144,
            "convention": "opencv",
            "intrinsics": {"hfov": 90},
            "depth_scale": 1000,
        },
    ),
    "seen": _example("Keep what was not seen before", {"merge_frames": "seen", "convention": "ros_optical"}),
}
FRAME: Examples = {
    "posed": _example(
        "A frame with depth and pose",
        {"images": [IMAGE], "depths": [DEPTH], "pose": _POSE, "timestamp": 12.5},
    ),
}
QUESTION: Examples = {
    "count": _example("A question", {"question": "How many chairs did you see?", "max_new_tokens": 16}),
}
MOVE: Examples = {"loop": _example("After a loop closure", {"poses": {"0": _POSE}})}
OVERLAY: Examples = {
    "depth": _example(
        "Depth steers the merging",
        {"images": [IMAGE], "depths": [DEPTH], "depth_scale": 1000, "method": "tosa", "keep_ratio": 0.5},
    ),
    "estimate": _example("Depth is estimated", {"images": [IMAGE], "depth": "estimate"}),
}
ROOM: Examples = {"room": _example("A room in the dark", {"seed": 7, "condition": "dark"})}
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
FORMATS = (
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "report", "strict": True, "schema": SCHEMA}},
)
"""Values of response_format."""
CHAT: Examples = {
    "plain": _example("A question", {"messages": [{"role": "user", "content": [_TEXT_PART, _IMAGE_PART]}]}),
    "depth": _example(
        "Depth steers the merging",
        {
            "messages": [
                {"role": "system", "content": "Answer with one word."},
                {"role": "user", "content": [_IMAGE_PART, _DEPTH_PART, _TEXT_PART]},
            ],
            "merge": {"method": "tosa", "keep_ratio": 0.5},
            "depth": {"scale": 1000},
            "max_completion_tokens": 16,
        },
    ),
    "schema": _example(
        "An answer that matches a JSON schema",
        {
            "messages": [{"role": "user", "content": [_TEXT_PART, _IMAGE_PART]}],
            "response_format": FORMATS[1],
            "max_completion_tokens": 16,
        },
    ),
    "stream": _example(
        "The answer as it comes",
        {
            "messages": [{"role": "user", "content": [_TEXT_PART, _IMAGE_PART]}],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
}
