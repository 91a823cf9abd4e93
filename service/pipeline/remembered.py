"""What is left of frames whose tokens have merged, as a language model reads it and a response tells it."""

from __future__ import annotations

from dataclasses import dataclass

from service.pipeline.planning import Planned
from service.pipeline.response_models import EpisodeUsed


@dataclass(frozen=True, eq=False)
class Remembered:
    """Describe the frames of an episode for a response. planned: of each frame that still has tokens."""

    planned: tuple[Planned, ...]
    used: EpisodeUsed
