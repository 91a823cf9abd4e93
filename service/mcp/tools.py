"""The tools: each asks the service and returns a text, the JSON of the service, and maybe a picture.

The service checks what they are given, so that its own texts say what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import anyio.to_thread
from mcp.server import MCPServer
from mcp.types import CallToolResult
from pydantic import Field

from service.mcp.calling import (
    READS,
    DepthFile,
    ImageFile,
    MaybeRatio,
    Preset,
    Question,
    Ratio,
    Scale,
    explained,
    read_files,
    result,
    sent,
)
from service.mcp.drawing import groups_png
from service.mcp.files import Files
from service.mcp.texts import answer_text, comparison_text, inspection_text, methods_text
from tosa_vqa_client import AsyncClient


class Tools:
    """Answer an agent's calls with a client; every error of the service becomes the text of a tool error."""

    def __init__(self, client: AsyncClient, files: Files) -> None:
        self._client, self._files = client, files

    def add_to(self, server: MCPServer[Any]) -> None:
        """Offer the tools at a server."""
        for tool in (self.ask_frame, self.compare_methods, self.inspect_depth, self.list_methods):
            server.add_tool(explained(tool), name=tool.__name__, annotations=READS)

    async def ask_frame(
        self,
        image: ImageFile,
        question: Question,
        depth: DepthFile = None,
        method: Annotated[
            str | None, Field(description="Merging method; by default tosa with depth, else none.")
        ] = None,
        keep_ratio: MaybeRatio = None,
        depth_preset: Preset = None,
        depth_scale: Scale = None,
        max_new_tokens: Annotated[int, Field(description="Longest answer, in tokens.")] = 32,
        picture: Annotated[bool, Field(description="Whether to draw the merged patches.")] = False,
    ) -> CallToolResult:
        """Answer a question about a camera frame, with its depth if there is one, and say how it was made."""
        frame = await read_files(self._files, image=image, depth=depth)
        options = sent(
            method=method, keep_ratio=keep_ratio, depth_preset=depth_preset, depth_scale=depth_scale
        )
        files = frame["image"], frame.get("depth")
        answer = await self._client.ask(
            question, *files, **options, confidence=True, max_new_tokens=max_new_tokens
        )
        if not picture:
            return result(answer_text(answer), answer.raw)
        shown = await self._client.overlay(*files, **options, views="single")
        drawn = await anyio.to_thread.run_sync(lambda: groups_png(frame["image"], shown.views[0]))
        return result(answer_text(answer), answer.raw, drawn)

    async def compare_methods(
        self,
        image: ImageFile,
        question: Question,
        depth: DepthFile = None,
        methods: Annotated[Sequence[str], Field(description="Merging methods; list_methods lists them.")] = (
            "none",
            "tome",
            "tosa",
        ),
        keep_ratio: Ratio = 0.25,
        depth_preset: Preset = None,
        depth_scale: Scale = None,
    ) -> CallToolResult:
        """Answer one question with several merging methods, and compare answers, tokens and times."""
        frame = await read_files(self._files, image=image, depth=depth)
        specs: Any = [
            {"method": name} if name == "none" else {"method": name, "keep_ratio": keep_ratio}
            for name in methods
        ]
        options = sent(depth_preset=depth_preset, depth_scale=depth_scale)
        compared = await self._client.compare(question, frame["image"], specs, frame.get("depth"), **options)
        return result(comparison_text(compared), compared.raw)

    async def inspect_depth(
        self,
        depth: Annotated[str, Field(description="The depth file: a path, or data:;base64,...")],
        image: Annotated[str | None, Field(description="The image of the same view, to compare.")] = None,
        depth_preset: Preset = None,
        depth_scale: Scale = None,
        picture: Annotated[bool, Field(description="Whether to draw the depth.")] = True,
    ) -> CallToolResult:
        """Say how a depth file is read, what was guessed and what is doubtful, and draw it."""
        frame = await read_files(self._files, image=image, depth=depth)
        options = sent(depth_preset=depth_preset, depth_scale=depth_scale, picture=picture)
        seen = await self._client.inspect_depth(frame["depth"], frame.get("image"), **options)
        told = {name: value for name, value in seen.raw.items() if name != "picture"}
        return result(inspection_text(seen), told, seen.picture)

    async def list_methods(self) -> CallToolResult:
        """List the merging methods of the service, what each needs, and its options."""
        listed = await self._client.methods()
        return result(methods_text(listed), listed.raw)
