"""`tosa-vqa mcp` as a host starts it: stdio and streamable HTTP, and what it refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from click.testing import CliRunner
from mcp import Client, StdioServerParameters
from mcp.types import TextContent

from service.cli.main import app
from service.mcp.server import is_loopback
from tests.loopback import PATIENCE_S, free_port, listens, wait_for
from tests.service.chats import uri
from tests.service.files import IMAGE

ROOT = Path(__file__).parents[2]
QUESTION: Any = {"image": uri(IMAGE), "question": "how many cubes ?", "max_new_tokens": 2}
COMMAND = ("-m", "service", "mcp")


def asked(server: Any, arguments: Any = QUESTION) -> Any:
    async def run() -> Any:
        async with Client(server) as client:
            return await client.call_tool("ask_frame", arguments)

    return anyio.run(run)


def command(*options: str) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=[*COMMAND, *options], cwd=ROOT)


@pytest.mark.long
def test_a_host_starts_it_and_asks_a_running_service(url: str, folder: Path) -> None:
    found = asked(command("--url", url), {**QUESTION, "image": str(folder / "rgb.png")})
    assert not found.is_error and found.structured_content["model"]["id"] == "tiny"


@pytest.mark.long
def test_a_host_starts_it_with_a_model(checkpoint: Path) -> None:
    found = asked(command("--model", str(checkpoint), "--depth-model", "none"))
    assert not found.is_error and found.structured_content["model"]["id"] == "tiny"


@contextmanager
def serving(*options: str) -> Iterator[int]:
    """Run the command with HTTP on a free port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, *COMMAND, "--http", "--port", str(port), *options], cwd=ROOT)
    try:
        wait_for(lambda: listens(port) or process.poll() is not None)
        yield port
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) in (0, -signal.SIGTERM)  # uvicorn ends by the signal it got


@pytest.mark.long
def test_it_serves_http_and_reads_no_file_there(url: str, folder: Path) -> None:
    with serving("--url", url) as port:
        address = f"http://127.0.0.1:{port}/mcp"
        assert not asked(address).is_error
        refused = asked(address, {**QUESTION, "image": str(folder / "rgb.png")}).content[0]
        assert isinstance(refused, TextContent) and "start it with --files FOLDER" in refused.text


@pytest.mark.long
def test_it_serves_no_page_that_names_another_host(url: str) -> None:
    accepted = {"Accept": "application/json, text/event-stream"}
    with serving("--url", url, "--files", str(ROOT)) as port, httpx.Client(trust_env=False) as client:
        address = f"http://127.0.0.1:{port}/mcp"
        for name, value, status in (
            ("Host", "rebound.example", 421),
            ("Origin", "https://page.example", 403),
        ):
            assert client.post(address, json={}, headers={**accepted, name: value}).status_code == status


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--http", "--host", "0.0.0.0"), "other machines reach 0.0.0.0, and MCP has no keys here"),
        (("--http", "--host", "robot.local"), "other machines reach robot.local"),
        (("--url", "http://127.0.0.1:9", "--model", "room-tiny"), "--model is for a service in this process"),
        (("--url", "127.0.0.1:9"), "begins with http:// or https://"),
        (("--device", "tpu"), "device"),
        (("--files", "/nowhere"), "does not exist"),
    ],
)
def test_what_it_refuses(options: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, ["mcp", *options])
    assert done.exit_code == 2 and said in done.output


def test_only_this_machine_reaches_the_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "robot.local", "")))


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cli.mcp.find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["mcp"])
    assert done.exit_code == 2 and "pip install 'tosa-vqa[mcp]'" in done.output
