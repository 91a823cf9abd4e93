"""The tools, called by the client of the SDK: answers, pictures, and errors with the texts of the service."""

from __future__ import annotations

import base64
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from mcp import Client
from mcp.types import CallToolResult, ImageContent, TextContent
from PIL import Image

from service.mcp.files import Files
from service.mcp.server import make_server
from tests.service.chats import uri
from tests.service.files import IMAGE, PIXELS
from tosa_vqa_client import AsyncClient, Retries

QUESTION = "how many cubes ?"
Session = Callable[[Client], Awaitable[Any]]


def session(url: str, talk: Session, files: Files | None = None) -> Any:
    """Let a client of the SDK talk to a server that asks this service."""

    async def run() -> Any:
        async with AsyncClient(url, retries=Retries(1)) as asking:
            server = make_server(asking, Files() if files is None else files)
            async with Client(server, raise_exceptions=True) as client:
                return await talk(client)

    return anyio.run(run)


def call(url: str, tool: str, files: Files | None = None, **arguments: Any) -> CallToolResult:
    return session(url, lambda client: client.call_tool(tool, arguments), files)


def text(result: CallToolResult) -> str:
    first = result.content[0]
    assert isinstance(first, TextContent)
    return first.text


def test_the_tools_say_what_they_take(url: str) -> None:
    tools = session(url, lambda client: client.list_tools()).tools
    frames = ["ask_frame", "compare_methods", "inspect_depth", "list_methods"]
    episodes = ["start_episode", "add_frame", "ask_episode", "inspect_episode", "end_episode"]
    assert [tool.name for tool in tools] == [*frames, *episodes]
    for tool in tools:
        changes = tool.name in ("start_episode", "add_frame", "end_episode")
        assert tool.description and tool.annotations and tool.annotations.read_only_hint is not changes
        for name, field in tool.input_schema["properties"].items():
            assert field.get("description"), f"{tool.name}: {name}"
    assert tools[0].input_schema["required"] == ["image", "question"]


def test_a_frame_is_asked(url: str, folder: Path) -> None:
    plain = call(url, "ask_frame", image=str(folder / "rgb.png"), question=QUESTION, max_new_tokens=4)
    assert not plain.is_error and plain.structured_content
    said = text(plain)
    assert said.startswith(f"Answer: {plain.structured_content['answer']}\nConfidence: 0.")
    assert "The answer was cut off: ask with a larger max_new_tokens." in said
    assert "Merging: none, all 16 visual tokens" in said and "Depth: none" in said
    depth: Any = {"depth": str(folder / "depth.png"), "method": "tosa", "keep_ratio": 0.5}
    merged = call(url, "ask_frame", image=uri(IMAGE), question=QUESTION, **depth)
    assert merged.structured_content and merged.structured_content["depth"]["source"] == "client"
    assert "tosa kept 8 of 16 visual tokens" in text(merged)
    assert "Guessed: " in text(merged) and "A depth_preset would say it." in text(merged)


def test_merged_patches_are_drawn(url: str, folder: Path) -> None:
    frame: Any = {"image": str(folder / "rgb.png"), "depth": str(folder / "depth.png"), "question": QUESTION}
    found = call(url, "ask_frame", **frame, keep_ratio=0.5, max_new_tokens=2, picture=True)
    picture = found.content[1]
    assert isinstance(picture, ImageContent)
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.data))))
    assert drawn.shape == PIXELS.shape and not np.array_equal(drawn, PIXELS)


def test_methods_are_compared(url: str, folder: Path) -> None:
    frame: Any = {"image": str(folder / "rgb.png"), "depth": str(folder / "depth.png"), "question": QUESTION}
    found = call(url, "compare_methods", **frame, methods=["none", "tome", "tosb"], keep_ratio=0.5)
    assert found.is_error and "tosb" in text(found) and "cubist" in text(found)
    found = call(url, "compare_methods", **frame, keep_ratio=0.5)
    rows = text(found).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:5]] == ["| none", "| tome", "| tosa"]
    assert found.structured_content and len(found.structured_content["results"]) == 3
    assert rows[-1].endswith("answers equal the one without merging.")


def test_depth_is_inspected_and_drawn(url: str, folder: Path) -> None:
    found = call(url, "inspect_depth", depth=str(folder / "depth.png"), image=str(folder / "rgb.png"))
    picture = found.content[1]
    assert isinstance(picture, ImageContent) and picture.mime_type == "image/png"
    assert base64.b64decode(picture.data).startswith(b"\x89PNG")
    assert found.structured_content and "picture" not in found.structured_content
    assert text(found).startswith("png of 64 x 48 pixels, uint16: metric from 0.5 to 3.57")
    assert "Same proportions as the image: yes" in text(found)
    assert len(call(url, "inspect_depth", depth=str(folder / "depth.png"), picture=False).content) == 1


def test_methods_are_listed(url: str) -> None:
    listed = call(url, "list_methods")
    assert "tosa: " in text(listed) and "depth always; set by keep_ratio or r" in text(listed)
    assert listed.structured_content and "defaults" in listed.structured_content


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"image": uri(b"GIF89a")}, "bad_image: "),
        ({"image": uri(IMAGE), "method": "tosb"}, "unknown_method: "),
        ({"image": uri(IMAGE), "keep_ratio": 2}, "keep_ratio"),
        ({"image": uri(IMAGE), "depth_preset": "x", "depth": uri(IMAGE)}, "unknown_depth_preset: "),
        ({"image": "https://example.com/rgb.png"}, "this server fetches nothing: send the file as data:"),
        ({"image": "data:image/png;base64,#"}, "image is not valid base64"),
        ({"image": "data:image/png,x"}, "image must be data:<media type>;base64,<data>"),
        ({"image": "/nowhere/rgb.png"}, "image: there is no file /nowhere/rgb.png"),
        ({"image": "/dev/zero"}, "image: there is no file /dev/zero"),
        ({"image": "~nobody-of-this-name/x"}, "image"),
        ({"image": "a\0b"}, "image"),
        ({"image": "x" * 5000}, "image"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "-".join(value),
)
def test_errors_say_what_to_do(url: str, arguments: dict[str, Any], said: str) -> None:
    found = call(url, "ask_frame", question=QUESTION, **arguments)
    assert found.is_error and said in text(found), text(found)
    assert "Traceback" not in text(found) and not text(found).startswith("Error executing tool")


def test_a_service_that_is_gone_is_said() -> None:
    found = call("http://127.0.0.1:9", "ask_frame", image=uri(IMAGE), question=QUESTION)
    assert found.is_error and "no connection to http://127.0.0.1:9" in text(found)


def test_files_are_read_below_the_folders_alone(url: str, folder: Path) -> None:
    files = Files.below([folder])
    for path in (folder / "rgb.png", folder / ".." / "frame" / "rgb.png"):
        assert not call(url, "ask_frame", files, image=str(path), question=QUESTION).is_error
    for path in (folder / "link.png", folder / ".." / "private.png", folder.parent / "private.png"):
        found = call(url, "ask_frame", files, image=str(path), question=QUESTION)
        assert found.is_error and f"or a path below {folder}" in text(found)
    none = call(url, "ask_frame", Files.below([]), image=str(folder / "rgb.png"), question=QUESTION)
    assert none.is_error and "start it with --files FOLDER" in text(none)
    assert not call(url, "ask_frame", Files.below([]), image=uri(IMAGE), question=QUESTION).is_error
