"""The answers about episodes."""

from __future__ import annotations

from typing import Any

from service.pipeline.response_models import DepthNote, EpisodeUsed, ResponseModel, described_field
from service.timing import TimingsMs


class EpisodeState(EpisodeUsed):
    """Describe an episode: what it was begun with, and what it holds."""

    request_id: str = described_field("Name of the request, as in X-Request-ID.", "robot-7.0042")
    created: float = described_field("When it was begun, in seconds since 1970.", 1_764_500_000.0)
    idle_s: float = described_field("Time after which it is deleted, if nobody uses it.", 3600)
    bytes: int = described_field("Memory that it takes.", 1_048_576)
    fields: dict[str, Any] = described_field("What it was begun with.", {"merge_frames": "cover"})


class EpisodeList(ResponseModel):
    """List the episodes of a key."""

    request_id: str = described_field("Name of the request, as in X-Request-ID.", "robot-7.0042")
    episodes: list[str] = described_field("Their ids.", ["0" * 32])


class EpisodeDeleted(ResponseModel):
    """Say that an episode is gone."""

    request_id: str = described_field("Name of the request, as in X-Request-ID.", "robot-7.0042")
    deleted: str = described_field("Its id.", "0" * 32)


class FrameTaken(ResponseModel):
    """Say what became of a frame."""

    request_id: str = described_field("Name of the request, as in X-Request-ID.", "robot-7.0042")
    episode: str = described_field("The episode.", "0" * 32)
    frame: int = described_field("Number of the frame, from 0.", 7)
    frames: int = described_field("Frames that came so far.", 8)
    tokens: int = described_field("Visual tokens of the frame, after merging inside it.", 144)
    admitted: int = described_field("Tokens of it that were taken in.", 60)
    placed: int = described_field("Tokens of it that have a place in the world.", 140)
    held: int = described_field("Tokens that the episode holds now.", 1104)
    agreement: float | None = described_field(
        "Share of what overlapping frames both see that lies at the same place; null before two overlapped.",
        0.93,
    )
    notes: list[DepthNote] = described_field("Doubts about poses, intrinsics and units so far.")
    cached: bool = described_field("Whether the encoding came from the cache.", False)
    timings_ms: TimingsMs = described_field("Time of each stage in milliseconds.")
