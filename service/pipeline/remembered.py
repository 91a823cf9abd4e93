"""What is left of frames whose tokens have merged, as a language model reads it and a response tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.pipeline.planning import Planned
from service.pipeline.response_models import EpisodeUsed, EpisodeWalk


@dataclass(frozen=True, eq=False)
class Remembered:
    """Describe the frames of an episode for a response.

    planned: of each frame that still has tokens. runs: tokens of each run, which a separator follows if
    `separates`. walk: without attention yet, None unless it was asked for.
    """

    planned: tuple[Planned, ...]
    used: EpisodeUsed
    runs: tuple[int, ...] = ()
    separates: bool = False
    walk: EpisodeWalk | None = None

    def used_by(self, attention: Sequence[float] | None) -> EpisodeUsed:
        """Describe the episode for an answer. attention: to every visual token of the prompt, if known."""
        if self.walk is None:
            return self.used
        walk = self.walk
        if attention is not None:
            shares = self._of_tokens(attention)
            tokens = [
                token.model_copy(update={"attention": float(f"{share:.4g}")})
                for token, share in zip(walk.tokens, shares, strict=True)
            ]
            walk = walk.model_copy(update={"tokens": tokens})
        return self.used.model_copy(update={"walk": walk})

    def _of_tokens(self, attention: Sequence[float]) -> list[float]:
        """Leave out what separators got."""
        shares, at = list[float](), 0
        for run in self.runs:
            shares += attention[at : at + run]
            at += run + self.separates
        return shares
