"""What all tools share: their arguments, the files they read, their results, and their errors."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Annotated, Any

import anyio.to_thread
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ContentBlock, ImageContent, TextContent, ToolAnnotations
from pydantic import Field

from service.mcp.files import Files
from tosa_vqa_client import ClientError

Tool = Callable[..., Awaitable[CallToolResult]]
READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
ImageFile = Annotated[str, Field(description="JPEG, PNG or WebP: a path, or data:image/png;base64,...")]
DepthFile = Annotated[
    str | None,
    Field(description="Depth of the same view, as PNG, TIFF, NPY, ...: a path, or data:;base64,..."),
]
Preset = Annotated[
    str | None, Field(description="What wrote the depth file: scannet, tum, realsense, kitti, ...")
]
Scale = Annotated[float | None, Field(description="Numbers of the depth file that make one metre.")]
_SHARE = Field(description="Share of the visual tokens to keep, above 0 and at most 1.")
Ratio = Annotated[float, _SHARE]
MaybeRatio = Annotated[float | None, _SHARE]
Question = Annotated[str, Field(description="The question, in English.")]


async def read_files(files: Files, **sources: str | None) -> dict[str, bytes]:
    """Read the files that were named, in a thread. Raises ToolError."""

    def read() -> dict[str, bytes]:
        return {name: files.read(source, name) for name, source in sources.items() if source is not None}

    return await anyio.to_thread.run_sync(read)


def result(text: str, structured: Mapping[str, Any], picture: bytes | None = None) -> CallToolResult:
    """Return a text for the model, its data for programs, and a PNG."""
    content: list[ContentBlock] = [TextContent(type="text", text=text)]
    if picture is not None:
        data = base64.b64encode(picture).decode()
        content.append(ImageContent(type="image", data=data, mime_type="image/png"))
    return CallToolResult(content=content, structured_content=dict(structured))


def sent(**options: Any) -> Any:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def explained(tool: Tool) -> Tool:
    """Answer with errors as texts that say what to do; the SDK would put the name of the tool before."""

    @wraps(tool)
    async def called(*args: Any, **kwargs: Any) -> CallToolResult:
        try:
            return await tool(*args, **kwargs)
        except (ClientError, ToolError) as error:
            return CallToolResult(content=[TextContent(type="text", text=str(error))], is_error=True)

    return called
