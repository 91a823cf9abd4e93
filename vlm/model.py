"""A loaded vision-language model: frozen values around one transformers model.

Nothing in this package writes to the model after loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from tosa import EncoderShape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

    from vlm.families import Family, Views
    from vlm.special_tokens import SpecialTokens
    from vlm.vocabulary import Vocabulary

Parts = Literal["all", "vision"]


class VlmError(Exception):
    """Say in one sentence why a model cannot be loaded or a prompt cannot be run.

    `code` is stable and machine readable: model_not_found, unsupported_model, unsupported_tower,
    no_safetensors, broken_checkpoint, device_unavailable, prompt_too_long, invalid_generation,
    unsupported_turns, invalid_schema, non_finite, wrong_image_size, wrong_plan, wrong_feature_layer,
    missing_spatial, wrong_spatial, unsupported_hook, no_head, already_patched, patched_elsewhere,
    unsupported_argument, unsupported_views, unsupported_image, unsupported_quantisation, unsupported_dtype,
    missing_package, no_chat_template, no_language_model, unsupported_language, unsupported_device_map.
    `rows`: of several prompts given together, the indices of those it is about. `field` is the parameter at
    fault, `limit` the bound that was passed and `choices` what would do, where there are any. Only the
    sentences of prompt_too_long, invalid_generation, unsupported_turns, unsupported_views,
    unsupported_image and invalid_schema are free of names and paths.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        rows: tuple[int, ...] = (),
        field: str | None = None,
        limit: float | None = None,
        choices: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.rows, self.field, self.limit, self.choices = code, rows, field, limit, choices

    def __reduce__(self) -> tuple[Any, ...]:
        # By default the class is called with the sentence alone.
        return type(self).__new__, (type(self), *self.args), self.__dict__


@dataclass(frozen=True)
class ImageSettings:
    """How a whole image becomes one square view: from preprocessor_config.json of the checkpoint.

    `size_px` is the side of the square view; `rescale` multiplies 0..255 values before `(v - mean) / std`;
    `resample` is a PIL resampling filter number.
    """

    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float
    resample: int


@dataclass(frozen=True, eq=False)
class Vlm:
    """Hold one loaded model and everything a request needs to know about it.

    `revision` is the hub commit where known, else 16 hex digits of the SHA-256 of the weights. `shape` is
    that of the vision layers that run, for a single view. `chat_template` is the checkpoint's, or that of a
    family whose prompts have none. `family` knows how its pictures, prompts and language model differ from
    those of others. `default_views`: where nobody asks for others. `parts`: of "vision", `model` has
    no language model and no head, and only encodes and embeds.
    """

    id: str
    revision: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    image_processor: ImageSettings
    chat_template: str
    shape: EncoderShape
    eos_token_ids: frozenset[int]
    device: torch.device
    dtype: torch.dtype
    family: Family
    default_views: Views = "auto"
    parts: Parts = "all"

    @property
    def core(self) -> Any:
        """The model without its head: tower, reducer and language model."""
        return self.model.model if self.parts == "all" else self.model

    @property
    def tower(self) -> Any:
        """The vision tower, as `encode` takes it."""
        return self.family.tower(self.core)

    @property
    def image_token_id(self) -> int:
        return self.family.image_token_id

    @property
    def text_config(self) -> PreTrainedConfig:
        return cast("PreTrainedConfig", self.model.config.text_config)

    @property
    def max_tokens(self) -> int:
        """Longest sequence, prompt and answer together, the language model was built for."""
        return self.text_config.max_position_embeddings

    @cached_property
    def special_tokens(self) -> SpecialTokens:
        """The ids and spellings of special tokens, read once."""
        from vlm.special_tokens import read_special_tokens

        return read_special_tokens(self.tokenizer, self.family)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the tokens spell; reading it takes a second for a large vocabulary, when first needed."""
        from vlm.vocabulary import read_vocabulary

        return read_vocabulary(self.tokenizer, self.text_config.vocab_size, min(self.eos_token_ids))


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queued work, so that a clock measures it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
