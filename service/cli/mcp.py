"""`tosa-vqa mcp`: the service as tools of an agent."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.errors import exit_on_errors, fail
from service.cli.in_process import load_settings
from service.cli.options import MODEL_OPTIONS, with_options

if TYPE_CHECKING:
    from tosa_vqa_client import AsyncClient

FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@with_options(*MODEL_OPTIONS)
@click.command()
@click.option("--url", help="Address of a running service; without it, one runs in this process.")
@click.option("--api-key-file", type=click.File(), help="File with the API key of that service.")
@click.option("--http", is_flag=True, help="Serve streamable HTTP at /mcp, and not stdin and stdout.")
@click.option("--host", default="127.0.0.1", help="Address of --http to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8765, help="Port of --http.")
@click.option("--allow-remote", is_flag=True, help="Let --host be an address that other machines reach.")
@click.option(
    "--files",
    "folders",
    type=FOLDER,
    multiple=True,
    help="Folder of files that agents may name; may be repeated. Without it: all over stdio, none over HTTP.",
)
def mcp(
    url: str | None,
    api_key_file: Any,
    http: bool,
    host: str,
    port: int,
    allow_remote: bool,
    folders: tuple[Path, ...],
    **model: Any,
) -> None:
    """Serve the tools of this service to agents (Model Context Protocol).

    A host such as Claude Desktop or VS Code starts this command and talks to it over stdin and stdout.
    """
    if not all(map(find_spec, ("mcp", "httpx"))):
        fail("this command needs the MCP SDK: pip install 'tosa-vqa[mcp]'")
    given = {name: value for name, value in model.items() if value is not None}
    if url is not None and given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        fail(f"{options} is for a service in this process: leave it out, or leave --url out")
    import anyio

    from service.mcp.files import Files
    from service.mcp.server import is_loopback, serve, service_here
    from service.server.process import exit_process

    if http and not allow_remote and not is_loopback(host):
        fail(f"other machines reach {host}, and MCP has no keys here: add --allow-remote if they may all ask")
    files = Files.below(folders) if folders or http else Files()
    key = None if api_key_file is None else api_key_file.read().strip()
    with exit_on_errors():
        opened = service_here(load_settings(**model)) if url is None else client_of(url, key)
    anyio.run(serve, opened, files, (host, port) if http else None)
    exit_process(0)


def client_of(url: str, api_key: str | None) -> AsyncClient:
    """Return a client of a service that runs somewhere; an address that cannot be ends the command."""
    from tosa_vqa_client import AsyncClient

    try:
        return AsyncClient(url, api_key=api_key)
    except ValueError as error:
        fail(str(error))
