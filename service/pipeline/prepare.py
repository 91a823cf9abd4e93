"""The pipeline of a request: every stage takes the value of the previous one and returns the next.

`prepare` runs in a decoding thread, `service/engine` infers in the model thread, `respond` runs anywhere.
Between requests only estimated depth and encoded frames are kept.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from depth import DepthError, Note, note_alignment
from service.budgets import Costs
from service.pipeline.depth_source import Source, depth_source, read_depth_of, spatial_for
from service.pipeline.depth_summary import of_report, of_sent
from service.pipeline.frames import EncodeOptions, Frame, attach_spatial, estimate_depth, stacked, to_frame
from service.pipeline.images import decode_image
from service.pipeline.models import Models
from service.pipeline.planning import plan_request
from service.pipeline.response_models import DepthUsed
from service.request.schemas import Output, VqaRequest
from service.settings import Settings
from service.timing import StageTimer
from tosa import MergePlan, Tokens
from vlm import (
    GenerationParams,
    TokenLogprob,
    Vlm,
    VlmError,
    chat_ids,
    encode,
    prompt_ids,
    require_room,
)
from vlm.grammar import Grammar, compile_schema


@dataclass(frozen=True, eq=False)
class Prepared:
    """Hold a request that can no longer be refused for its inputs, ready for the model.

    prompt: ids [1, T]. params: how each of the answers is decoded. source: where depth comes from, None if
    the plan needs none; `depth` describes it, None for estimates, which are not made yet. notes: on files
    that were sent, for the description of estimates. remember: whether frames may come from the cache.
    schema_field: where the request has its schema.
    """

    prompt: Tensor
    params: tuple[GenerationParams, ...]
    plan: MergePlan
    frames: tuple[Frame, ...]
    source: Source | None
    depth: DepthUsed | None
    remember: bool
    schema_field: str = Output.schema_field
    notes: tuple[Note, ...] = ()

    @property
    def is_encoded(self) -> bool:
        """Return whether every frame is cached, so that no encoder has to run."""
        return all(frame.encoded is not None for frame in self.frames)

    @cached_property
    def digest(self) -> bytes:
        """Return a digest of the inputs of the model."""
        keys = b"".join(frame.key for frame in self.frames)
        return hashlib.sha256(keys + self.prompt.numpy().tobytes()).digest()


@dataclass(frozen=True)
class Written:
    """Hold one answer; logprobs: of its tokens, if they were asked for."""

    text: str
    completion_tokens: int
    finish_reason: Literal["stop", "length"]
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True)
class Inferred:
    """Hold the answers to one prompt and how they came about.

    cached: no encoder ran for them. depth: as in the response.
    """

    answers: tuple[Written, ...]
    prompt_tokens: int
    batch_size: int
    cached: bool
    depth: DepthUsed | None

    @property
    def text(self) -> str:
        """Return the first answer."""
        return self.answers[0].text

    @property
    def finish_reason(self) -> Literal["stop", "length"]:
        """Return why the first answer ended."""
        return self.answers[0].finish_reason

    @property
    def completion_tokens(self) -> int:
        """Count the tokens of all answers."""
        return sum(answer.completion_tokens for answer in self.answers)


def prepare(
    models: Models,
    request: VqaRequest,
    settings: Settings,
    timer: StageTimer,
    tenant: str | None = None,
    costs: Costs | None = None,
    check: Callable[[], None] = lambda: None,
) -> Prepared:
    """Plan the merging, then decode and prepare the images one by one to save memory.

    tenant: the key whose cached frames may be used. costs: counts the decoded pixels, also of a request that
    is then refused. check: called between images; it may raise to stop. Raises ServiceError, DepthError,
    PlanError, and VlmError for a prompt that is too long or a schema that cannot be used.
    """
    plan = plan_request(request.fields, request.wants_depth, models.vlm.shape)
    source = depth_source(request, plan, settings)
    params = _params(models.vlm, request, settings)
    prompt = _prompt(models.vlm, request, [plan.tokens_out] * len(request.images))
    timer.mark("preprocess")
    options = EncodeOptions(plan, source, tenant, request.fields.cache)
    frames, files = [], []
    for at, data in enumerate(request.images):
        check()
        image = decode_image(data, settings.max_image_px, request.image_name(at))
        with _depth_named(request, at):
            depth = read_depth_of(request, at, image, settings)
        timer.mark("decode")
        if costs is not None:
            costs.pixels += image.width * image.height * (1 if depth is None else 2)
        if depth is not None:
            files.append(of_report(note_alignment(depth[1], depth[0], image)))
        spatial = spatial_for(plan, source, None if depth is None else depth[0])
        timer.mark("depth" if source == "client" else "preprocess")
        frames.append(to_frame(models, image, options, spatial))
        timer.mark("preprocess")
    described, notes = of_sent(source, files)
    return Prepared(
        prompt,
        params,
        plan,
        tuple(frames),
        source,
        described,
        request.fields.cache,
        request.output.schema_field,
        notes,
    )


@contextmanager
def _depth_named(request: VqaRequest, at: int) -> Iterator[None]:
    """Let errors about a depth file name it as the client did, such as depths[2]."""
    try:
        yield
    except DepthError as error:
        if error.field == "depth":
            error.field = request.depth_name(at)
        raise


@torch.inference_mode()
def see(models: Models, prepared: Prepared, trace: list[Tokens] | None = None) -> Tokens:
    """Encode the images to visualise the merging; `trace` receives the tokens after every layer."""
    frames: Sequence[Frame] = prepared.frames
    if prepared.source == "estimate":
        assert models.estimation is not None, "depth_source asks for an estimate only of an estimator"
        frames = attach_spatial(prepared.plan, frames, estimate_depth(frames, models.estimation)[0])
    pixels, spatial = stacked(models.vlm, frames)
    return encode(models.vlm.tower, pixels, prepared.plan, spatial, trace=trace)


def _prompt(vlm: Vlm, request: VqaRequest, counts: Sequence[int]) -> Tensor:
    """Write the prompt, [1, T] on the CPU; refuse one that leaves no room for an answer."""
    turns = request.turns
    ids = prompt_ids(vlm, request.fields.question, counts) if turns is None else chat_ids(vlm, turns, counts)
    require_room(vlm, [ids])
    return ids.cpu()


def _params(vlm: Vlm, request: VqaRequest, settings: Settings) -> tuple[GenerationParams, ...]:
    """Return how each answer is decoded; the seeds are fixed, so that a batch can run again."""
    params, output = request.fields.generation_params(), request.output
    most = settings.max_answer_tokens or params.max_new_tokens
    one = replace(
        params,
        max_new_tokens=min(params.max_new_tokens, most),
        grammar=_grammar(vlm, output),
        top_logprobs=output.top_logprobs,
    )
    if one.temperature == 0:
        return (one,) * output.choices
    seed = secrets.randbits(63) if one.seed is None else one.seed
    return tuple(replace(one, seed=(seed + at) % 2**63) for at in range(output.choices))


def _grammar(vlm: Vlm, output: Output) -> Grammar | None:
    if output.schema is None:
        return None
    try:
        return compile_schema(vlm, output.schema)
    except VlmError as error:
        error.field = output.schema_field
        raise
