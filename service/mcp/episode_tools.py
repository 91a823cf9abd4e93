"""The tools about episodes: an agent that walks begins one, adds frames, asks, looks at it, and ends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import anyio.to_thread
from mcp.server import MCPServer
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field

from service.mcp.calling import (
    READS,
    DepthFile,
    ImageFile,
    MaybeRatio,
    Preset,
    Question,
    Scale,
    explained,
    read_files,
    result,
    sent,
)
from service.mcp.drawing import walk_png
from service.mcp.files import Files
from service.mcp.texts import answer_text, episode_text, taken_text, walk_text
from tosa_vqa_client import AsyncClient, EpisodeWalk

ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
ENDS = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)
Id = Annotated[str, Field(description="The id that start_episode returned.")]
Camera = Annotated[
    Mapping[str, float] | None,
    Field(description="Intrinsics: fx, fy, cx and cy in pixels, or hfov in degrees."),
]
CameraPose = Annotated[
    Mapping[str, Sequence[float]] | Sequence[float] | Sequence[Sequence[float]] | None,
    Field(
        description="Camera to world, in metres: 16 numbers row by row, 4 x 4, or position and quaternion. "
        "Without it, what the frame shows has no place."
    ),
]


class EpisodeTools:
    """Answer an agent's calls about episodes with a client."""

    def __init__(self, client: AsyncClient, files: Files) -> None:
        self._client, self._files = client, files

    def add_to(self, server: MCPServer[Any]) -> None:
        """Offer the tools at a server."""
        for tool, kind in (
            (self.start_episode, ADDS),
            (self.add_frame, ADDS),
            (self.ask_episode, READS),
            (self.inspect_episode, READS),
            (self.end_episode, ENDS),
        ):
            server.add_tool(explained(tool), name=tool.__name__, annotations=kind)

    async def start_episode(
        self,
        merge_frames: Annotated[
            str,
            Field(
                description="How tokens merge across frames: cover, seen, alike, voxel, diverse, still, none."
            ),
        ] = "cover",
        max_visual_tokens: Annotated[
            int | None, Field(description="Most visual tokens that a question reads, of all frames together.")
        ] = None,
        convention: Annotated[
            str | None,
            Field(
                description="How poses are written: opencv, opengl, ros_optical, ros_body, scannet, tum, "
                "habitat, arkit. Needed for poses."
            ),
        ] = None,
        intrinsics: Camera = None,
        method: Annotated[str | None, Field(description="Merging method inside frames.")] = None,
        keep_ratio: MaybeRatio = None,
        depth_preset: Preset = None,
        depth_scale: Scale = None,
    ) -> CallToolResult:
        """Begin an episode: camera frames that come one by one, and are remembered for questions."""
        options = sent(
            merge_frames=merge_frames,
            max_visual_tokens=max_visual_tokens,
            convention=convention,
            intrinsics=intrinsics,
            method=method,
            keep_ratio=keep_ratio,
            depth_preset=depth_preset,
            depth_scale=depth_scale,
        )
        begun = await self._client.begin_episode(**options)
        return result(f"Episode {begun.id} has begun. Add frames to it, then ask.", begun.raw)

    async def add_frame(
        self,
        episode: Id,
        image: ImageFile,
        depth: DepthFile = None,
        pose: CameraPose = None,
        timestamp: Annotated[
            float | None,
            Field(description="When it was taken, in seconds; never earlier than the one before."),
        ] = None,
    ) -> CallToolResult:
        """Add a camera frame to an episode, with its depth and the pose of the camera if they are known."""
        frame = await read_files(self._files, image=image, depth=depth)
        taken = await self._client.push_frame(
            episode, frame["image"], frame.get("depth"), **sent(pose=pose, timestamp=timestamp)
        )
        return result(taken_text(taken), taken.raw)

    async def ask_episode(
        self,
        episode: Id,
        question: Question,
        max_new_tokens: Annotated[int, Field(description="Longest answer, in tokens.")] = 32,
        picture: Annotated[
            bool, Field(description="Whether to draw where the answer looked, seen from above.")
        ] = False,
    ) -> CallToolResult:
        """Answer a question from what an episode remembers; nothing is encoded again."""
        answer = await self._client.ask_episode(
            episode, question, max_new_tokens=max_new_tokens, confidence=True, **sent(places=picture or None)
        )
        used = answer.episode
        told = answer_text(answer) + ("" if used is None else f"\n{episode_text(used)}")
        more, drawn = await _shown(None if used is None else used.walk)
        return result(told + more, answer.raw, drawn)

    async def inspect_episode(
        self,
        episode: Id,
        picture: Annotated[
            bool, Field(description="Whether to draw the walk and what is remembered, seen from above.")
        ] = True,
    ) -> CallToolResult:
        """Say what an episode holds: frames, tokens, doubts about poses, and the walk as a picture."""
        state = await self._client.episode(episode, places=picture)
        more, drawn = await _shown(state.walk)
        return result(episode_text(state) + more, state.raw, drawn)

    async def end_episode(self, episode: Id) -> CallToolResult:
        """End an episode; what it remembers is deleted."""
        await self._client.end_episode(episode)
        return result(f"Episode {episode} has ended.", {"deleted": episode})


async def _shown(walk: EpisodeWalk | None) -> tuple[str, bytes | None]:
    """Write and draw a walk, if there is one; return the lines to add, and a PNG."""
    if walk is None:
        return "", None
    return f"\n{walk_text(walk)}", await anyio.to_thread.run_sync(walk_png, walk)
