"""How the prompt and the language model of a family read visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from vlm.families.layout import Layout, Spelled, Views, Visual
from vlm.families.visual_runs import VisualRun

LanguageInput = Literal["embeds", "pictures", "none"]
"""What a language engine elsewhere is sent: embeddings of the whole prompt, ids with features and grids of
pictures, or nothing that would do."""


class Reading:
    """Describe a prompt whose placeholders become visual tokens, and who reads one feature for each.

    first_position: of a prompt. template: of a checkpoint that has none. has_places: positions are time, row
    and column; else they just count. adds_special: the tokenizer puts its first token in front of a prompt.
    sends_pictures: a language engine elsewhere needs to know where pictures are, and their grids.
    language_refusal: why no language engine elsewhere can read it, as the rest of a sentence.
    """

    config: Any
    tokenizer: Any
    kinds: ClassVar[tuple[Views, ...]]
    first_position: ClassVar[int] = 0
    template: ClassVar[str | None] = None
    has_places: ClassVar[bool] = False
    adds_special: ClassVar[bool] = True
    sends_pictures: ClassVar[bool] = False
    language_refusal: ClassVar[str | None] = None

    @property
    def language_input(self) -> LanguageInput:
        """Return what a language engine elsewhere is sent."""
        if self.language_refusal is not None:
            return "none"
        return "pictures" if self.sends_pictures else "embeds"

    @property
    def image_token_id(self) -> int:
        return self.config.image_token_id

    @property
    def visual_token_ids(self) -> tuple[int, ...]:
        """Return the tokens in whose place the language model reads features."""
        video = getattr(self.config, "video_token_id", None) if "video" in self.kinds else None
        return (
            (self.image_token_id,) if video in (None, self.image_token_id) else (self.image_token_id, video)
        )

    @cached_property
    def placeholders(self) -> Mapping[str, str]:
        """Return what a chat template writes for an image, and for a video, by modality."""
        names = {"image": self.image_token_id}
        if "video" in self.kinds and getattr(self.config, "video_token_id", None) is not None:
            names["video"] = self.config.video_token_id
        tokens = {kind: self.tokenizer.convert_ids_to_tokens(id_) for kind, id_ in names.items()}
        return {kind: str(token) for kind, token in tokens.items() if token is not None}

    def visual_token(self, modality: str) -> str:
        """Return the token in whose place features are read, as text."""
        return self.placeholders.get(modality, self.placeholders["image"])

    def spell(self, layout: Layout, counts: Sequence[int]) -> Spelled:
        """Write what the placeholder of a picture or video becomes. counts: as `counts` returns them."""
        return Spelled(self.visual_token(layout.modality), tuple(counts), layout.modality)

    # A language engine elsewhere.

    def for_servers(self) -> Self:
        """Return the family as it reduces for a language engine elsewhere."""
        return self

    def require_sendable(self, layout: Layout) -> None:
        """Raise VlmError where a language engine elsewhere could not be told what was seen."""

    def visual_runs(self, ids: Sequence[int], visuals: Sequence[Visual]) -> tuple[VisualRun, ...]:
        """Return what is sent beside the ids of a prompt, where `language_input` is "pictures"."""
        raise NotImplementedError

    @property
    def num_levels(self) -> int:
        """Count the earlier layers that the language model reads."""
        return 0

    # The language model.

    def text_model(self, core: Any) -> Any:
        """Return the module that has the layers of the language model, and the norm behind them."""
        return core.language_model

    def decoder(self, core: Any) -> Any:
        """Return the module that takes embeddings and makes its own masks."""
        return self.text_model(core)

    def logits(self, model: Any, hidden: Tensor) -> Tensor:
        """Return the logits [B, vocabulary] that follow hidden states [B, D]."""
        return model.lm_head(hidden)

    def positions(
        self, ids: Sequence[int], visuals: Sequence[Visual], device: torch.device
    ) -> tuple[Tensor, int]:
        """Return three-dimensional positions [3, T] of a prompt, and the next one, where `has_places`."""
        raise NotImplementedError

    def prompt_inputs(self, ids: Tensor, visuals: Sequence[Visual]) -> dict[str, Any]:
        """Return what else the language model needs for prompts [B, T], -1 where they are padded."""
        return {}

    def is_visual(self, ids: Tensor) -> Tensor:
        """Say where ids are those of visual tokens."""
        first, *others = self.visual_token_ids
        found = ids == first
        for other in others:
            found = found | (ids == other)
        return found
