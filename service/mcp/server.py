"""The MCP server: over stdio for a host that starts it, or over streamable HTTP on the loopback."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

import httpx
from mcp.server import MCPServer

from service.mcp.episode_tools import EpisodeTools
from service.mcp.files import Files
from service.mcp.tools import Tools
from service.settings import Settings
from tosa_vqa_client import AsyncClient, Retries

INSTRUCTIONS = """Ask questions about RGB-D camera frames. A vision-language model answers; visual tokens are
merged inside its encoder, guided by depth, which saves time. Give files as paths or as data: URIs. Begin with
ask_frame; inspect_depth shows how a depth file is read, and compare_methods what merging saves and costs. For
frames of a walk: start_episode, add_frame for each, then ask_episode; end_episode when it is over."""
MAX_MESSAGE_BYTES = 128 * 2**20
"""Longest HTTP message: two files in base64."""
PATH = "/mcp"
LOADING_S = 300.0
PATIENT = Retries(attempts=100)
"""For a service that begins to load when the first question is there already."""


def make_server(client: AsyncClient, files: Files) -> MCPServer[None]:
    """Make a server whose tools ask with this client and read these files."""
    server: MCPServer[None] = MCPServer(
        "tosa-vqa", version=version("tosa-vqa"), instructions=INSTRUCTIONS, log_level="WARNING"
    )
    Tools(client, files).add_to(server)
    EpisodeTools(client, files).add_to(server)
    return server


@asynccontextmanager
async def service_here(settings: Settings) -> AsyncIterator[AsyncClient]:
    """Run the service in this process, without a port; yield a client of it, which waits for the models."""
    from service.app import create_app  # and torch, which a client of another service does not need
    from service.telemetry import configure_logging

    configure_logging(settings, sys.stderr)  # stdout is the connection
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        AsyncClient("http://127.0.0.1", timeout_s=LOADING_S, retries=PATIENT, transport=transport) as client,
    ):
        yield client


async def serve(
    opened: AbstractAsyncContextManager[AsyncClient], files: Files, http: tuple[str, int] | None
) -> None:
    """Serve until the host closes stdin, or with `http`, an address and a port, until a signal."""
    async with opened as client:
        server = make_server(client, files)
        if http is None:
            await server.run_stdio_async()
        else:
            host, port = http
            await server.run_streamable_http_async(
                host=host, port=port, streamable_http_path=PATH, max_request_body_size=MAX_MESSAGE_BYTES
            )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
