"""The tools for episodes, called by the client of the SDK, over stdio and streamable HTTP too."""

from __future__ import annotations

import base64
import io
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import CallToolResult, ImageContent
from PIL import Image

from service.mcp.drawing import walk_png
from tests.mcp.test_command import command, serving
from tests.mcp.test_tools import session, text
from tests.service.chats import uri
from tests.service.episodes import INTRINSICS, walk
from tosa_vqa_client import EpisodeWalk, WalkCamera, WalkToken

RULE = {
    "convention": "opencv",
    "intrinsics": INTRINSICS,
    "depth_scale": 1000,
    "method": "none",
    "max_visual_tokens": 24,
}
Call = Callable[..., Awaitable[CallToolResult]]


def told(found: CallToolResult) -> Any:
    assert not found.is_error and found.structured_content is not None, text(found)
    return found.structured_content


async def walked(call: Call) -> None:
    """Walk through an episode: every tool in the order in which an agent would take them."""
    begun = await call("start_episode", **RULE)
    episode = told(begun)["id"]
    assert f"Episode {episode} has begun" in text(begun)
    for at, (image, depth, pose) in enumerate(walk(12)[:3]):
        taken = await call(
            "add_frame", episode=episode, image=uri(image), depth=uri(depth), pose=pose, timestamp=at
        )
        assert told(taken)["frame"] == at and f"Frame {at} was taken in" in text(taken)
    answer = await call("ask_episode", episode=episode, question="how many cubes ?", max_new_tokens=3)
    assert text(answer).startswith(f"Answer: {told(answer)['answer']}\nConfidence: 0.")
    assert "Episode: 3 frames" in text(answer) and len(answer.content) == 1
    drawn = await call(
        "ask_episode", episode=episode, question="how many cubes ?", max_new_tokens=3, picture=True
    )
    assert told(drawn)["answer"] == told(answer)["answer"] and "Read most: (" in text(drawn)
    seen = await call("inspect_episode", episode=episode)
    assert "a question reads 24 visual tokens, merged by cover" in text(seen)
    for one in (drawn, seen):
        picture = one.content[1]
        assert isinstance(picture, ImageContent)
        pixels = Image.open(io.BytesIO(base64.b64decode(picture.data)))
        assert len(pixels.getcolors(100_000) or ()) >= 3, "path, dots and ground"
    assert told(await call("end_episode", episode=episode)) == {"deleted": episode}
    gone = await call("ask_episode", episode=episode, question="?")
    assert gone.is_error and "episode_not_found" in text(gone)


def of(client: Client) -> Call:
    return lambda tool, **arguments: client.call_tool(tool, arguments)


def test_an_agent_walks(url: str) -> None:
    session(url, lambda client: walked(of(client)))


@pytest.mark.long
def test_an_agent_walks_over_stdio(url: str) -> None:
    async def run() -> None:
        async with Client(command("--url", url)) as client:
            await walked(of(client))

    anyio.run(run)


@pytest.mark.long
def test_an_agent_walks_over_http(url: str) -> None:
    async def run(address: str) -> None:
        async with Client(address) as client:
            await walked(of(client))

    with serving("--url", url) as port:
        anyio.run(run, f"http://127.0.0.1:{port}/mcp")


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("start_episode", {"merge_frames": "glue"}, "merge_frames"),
        ("start_episode", {"convention": "mine"}, "convention"),
        ("add_frame", {"episode": "../x", "image": "data:image/png;base64,AA=="}, "not_found"),
        ("add_frame", {"episode": "0" * 32, "image": "https://example.com/x.png"}, "fetches nothing"),
        ("inspect_episode", {"episode": "0" * 32}, "episode_not_found"),
        ("end_episode", {"episode": "0" * 32}, "episode_not_found"),
    ],
)
def test_errors_say_what_to_do(url: str, tool: str, arguments: dict[str, Any], said: str) -> None:
    found = session(url, lambda client: client.call_tool(tool, arguments))
    assert found.is_error and said in text(found), text(found)
    assert "Traceback" not in text(found) and not text(found).startswith("Error executing tool")


def test_a_walk_is_drawn_whatever_it_holds() -> None:
    camera = WalkCamera(0, (0.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
    down = WalkCamera(1, (1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 0.0, 0.0))
    token = WalkToken((1.0, 2.0, 0.5), (0,), 0.25)
    for cameras in ((), (camera,), (down,), (camera, down)):
        for tokens in ((), (token,), (token, WalkToken(None, (0,), None))):
            assert walk_png(EpisodeWalk(cameras, tokens)).startswith(b"\x89PNG")
