"""What a client may send and what it gets back, as values; how they travel is the business of forms.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from service.errors import ApiError
from service.settings import Settings
from tosa import METHODS, MergeSpec
from vlm import GenerationParams

DEFAULT_KEEP_RATIO = 0.25
FORM_FILES, JSON_FILES = ("image", "depth"), ("images", "depths")
_CODES = {
    "method": "unknown_method",
    "keep_ratio": "keep_ratio_out_of_range",
    **dict.fromkeys(("r", "schedule", "alpha", "prop_attn", "order"), "bad_merge_spec"),
    **dict.fromkeys(("max_new_tokens", "temperature", "top_p", "seed"), "bad_generation"),
    "depth_scale": "bad_depth_scale",
}


def _numbers(value: object) -> object:
    """Read "8", "0.5", "8,8,4" and "[8, 8, 4]" as numbers, for forms that can only carry text; keep words."""
    if not isinstance(value, str):
        return value
    try:
        parts = [_number(part) for part in value.strip().strip("[]").split(",")]
    except ValueError:
        return value
    return parts if len(parts) > 1 or value.strip().startswith("[") else parts[0]


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


Count = Annotated[int, Field(ge=0, le=1_000_000)]
Counts = Annotated[list[Count], Field(max_length=512)]
Weights = Annotated[list[float], Field(max_length=512)]
Word = Annotated[str, Field(max_length=32)]


class VqaFields(BaseModel):
    """Hold the fields of a question beside its files, checked one by one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    question: str
    method: Word | None = Field(default=None, description="Merging method; tosa if depth is sent, else none.")
    keep_ratio: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description=f"Share of visual tokens to keep; {DEFAULT_KEEP_RATIO} if r is not sent.",
    )
    r: Annotated[Count | Counts | None, BeforeValidator(_numbers)] = Field(
        default=None, description="Tokens to remove at each layer, or a list with one count per layer."
    )
    schedule: Annotated[Word | float, BeforeValidator(_numbers)] = Field(
        default="constant", description="constant, decreasing, increasing, or an inflection in [-1, 1]."
    )
    alpha: Annotated[Word | float | Weights, BeforeValidator(_numbers)] = Field(
        default="increase",
        description="Weight of the visual term of ToSA: increase, decrease, uniform, number, list.",
    )
    prop_attn: bool | None = Field(
        default=None, description="Proportional attention; the method's default if not sent."
    )
    order: Word = Field(
        default="raster", description="Order in which the language model sees tokens: raster, merge."
    )
    depth_scale: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="Depth units per metre; 1000 for PNG, 1 for NPY if not sent.",
    )
    max_new_tokens: int = Field(default=32, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2, description="0 decodes greedily.")
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)

    def generation_params(self) -> GenerationParams:
        """Return how the answer is to be decoded."""
        return GenerationParams(self.max_new_tokens, self.temperature, self.top_p, self.seed)

    def merge_spec(self, has_depth: bool) -> MergeSpec:
        """Return what the encoder is asked to do, with the defaults of this service filled in."""
        method = self.method or ("tosa" if has_depth else "none")
        is_default_ratio = self.keep_ratio is None and self.r is None and METHODS[method].merges
        return MergeSpec(
            method=method,
            keep_ratio=DEFAULT_KEEP_RATIO if is_default_ratio else self.keep_ratio,
            r=tuple(self.r) if isinstance(self.r, list) else self.r,
            schedule=self.schedule,
            alpha=tuple(self.alpha) if isinstance(self.alpha, list) else self.alpha,
            prop_attn=self.prop_attn,
            order=self.order,  # type: ignore[arg-type]  # make_plan refuses other words
        )


@dataclass(frozen=True)
class VqaRequest:
    """Hold one question: checked fields, and the bytes of its files in order, not decoded yet."""

    fields: VqaFields
    images: tuple[bytes, ...]
    depths: tuple[bytes, ...]


def check_fields(raw: Mapping[str, Any], settings: Settings, *, strict: bool) -> VqaFields:
    """Check the fields of a question against their bounds and the limits of this process.

    `strict` refuses "8" for 8 and true for 1, for forms that know types. Raises ApiError.
    """
    try:
        fields = VqaFields.model_validate(dict(raw), strict=strict)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise _refusal(errors, JSON_FILES if strict else FORM_FILES) from None
    if not _is_unicode(fields.question):
        raise ApiError("bad_request", reason="value", field="question")
    if not fields.question.strip():
        raise ApiError("empty_question", field="question")
    if len(fields.question) > settings.max_question_chars:
        raise ApiError("question_too_long", field="question", limit=settings.max_question_chars)
    if fields.max_new_tokens > settings.max_answer_tokens:
        raise ApiError("bad_generation", field="max_new_tokens", limit=settings.max_answer_tokens)
    if fields.method is not None and fields.method not in METHODS:
        raise ApiError("unknown_method", field="method", choices=tuple(METHODS))
    return fields


def check_counts(asked: VqaRequest, settings: Settings) -> None:
    """Check that there are images, not too many, and no depth at all or one for each. Raises ApiError."""
    if not 1 <= len(asked.images) <= settings.max_images:
        raise ApiError("image_count", field="image", limit=settings.max_images)
    if len(asked.depths) not in (0, len(asked.images)):
        raise ApiError("depth_count", field="depth")


def unknown_field(name: str, files: Sequence[str]) -> ApiError:
    """Refuse a field nobody knows, naming those there are; its name is only repeated if it looks like one."""
    is_plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum() and len(name) <= 64
    return ApiError(
        "unknown_field", field=name if is_plain else None, choices=(*files, *VqaFields.model_fields)
    )


def _is_unicode(text: str) -> bool:
    """Say whether a text can be written down: JSON may escape half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(errors: Sequence[ErrorDetails], files: Sequence[str]) -> ApiError:
    unknown = next((error for error in errors if error["type"] == "extra_forbidden"), None)
    if unknown is not None:
        return unknown_field(str(unknown["loc"][0]), files)
    name, kind = str(errors[0]["loc"][0]), errors[0]["type"]
    if name == "question" and kind == "missing":
        return ApiError("empty_question", field="question")
    if name == "method":
        return ApiError("unknown_method", field="method", choices=tuple(METHODS))
    code = _CODES.get(name, "bad_request")
    return ApiError(code, reason="value" if code == "bad_request" else f"bad_{name}", field=name)


class ErrorDetail(BaseModel):
    """Say why a request was refused; `field`, `choices` and `limit` only where they help."""

    code: str
    message: str
    request_id: str
    field: str | None = None
    choices: list[str] | None = None
    limit: int | None = None


class ErrorResponse(BaseModel):
    """Refuse a request."""

    error: ErrorDetail


class ModelUsed(BaseModel):
    """Name the model that answered."""

    id: str
    revision: str


class MergeDone(BaseModel):
    """Say what merging did; token counts are summed over the images, r and alpha appear where they acted."""

    method: str
    keep_ratio: float
    tokens_in: int
    tokens_out: int
    vit_flops_ratio: float
    prop_attn: bool
    r: int | list[int] | None = None
    alpha: str | float | list[float] | None = None


class DepthUsed(BaseModel):
    """Say which depth steered the merging."""

    source: str
    kind: str
    valid_ratio: float


class Usage(BaseModel):
    """Count the tokens of the language model."""

    prompt_tokens: int
    completion_tokens: int


class TimingsMs(BaseModel):
    """Hold milliseconds by stage, null for a stage that did not run; the stages add up to the total."""

    queue: float | None
    decode: float | None
    preprocess: float | None
    depth: float | None
    vision: float | None
    prefill: float | None
    generate: float | None
    total: float


class VqaResponse(BaseModel):
    """Answer a question and say what was done for it."""

    answer: str
    request_id: str
    model: ModelUsed
    merge: MergeDone
    depth: DepthUsed | None = Field(description="null where no depth was used, also if one was sent.")
    usage: Usage
    timings_ms: TimingsMs
