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
from typing import TYPE_CHECKING, Literal

import torch
from PIL import Image
from torch import Tensor

from depth import DepthError, DepthMap, Note, note_alignment
from service.budgets import Costs
from service.pipeline.automatic import decided, no_calibration
from service.pipeline.depth_source import Source, depth_source, read_depth_of, spatial_for
from service.pipeline.depth_summary import of_report, of_sent
from service.pipeline.frames import EncodeOptions, Frame, to_frame
from service.pipeline.geometry import FrameGeometry, check_times, frame_geometry, require_followed
from service.pipeline.images import decode_image, image_header
from service.pipeline.models import Models
from service.pipeline.planning import Planned, plan_request, with_one_video
from service.pipeline.remembered import Remembered
from service.pipeline.response_models import DepthUsed
from service.request.schemas import AUTO, Output, VqaRequest
from service.settings import Settings
from service.timing import StageTimer
from tosa import MergePlan, MergeSpec
from vlm import (
    GenerationParams,
    TokenLogprob,
    Visual,
    Vlm,
    VlmError,
    chat_ids,
    prompt_ids,
    require_room,
)
from vlm.grammar import Grammar, compile_schema

if TYPE_CHECKING:
    from service.pipeline.merge_trace import MergeTrace


@dataclass(frozen=True, eq=False)
class Prepared:
    """Hold a request that can no longer be refused for its inputs, ready for the model.

    prompt: ids [1, T]. params: how each of the answers is decoded. frames: pictures, or one video; at least
    one. source: where depth comes from, None if the plan needs none; `depth` describes it, None for
    estimates, which are not made yet. notes: on files that were sent, for the description of estimates.
    remember: whether frames may come from the cache. schema_field: where the request has its schema. salt:
    what keeps its prompt apart in caches of language servers, None if nothing has to. geometry: of each
    frame, where tokens merge across frames; then there is no prompt, and nothing to answer, until they have.
    episode: what is left of the frames that have merged, which `frames` hold as runs of tokens. because: why
    method=auto chose this plan, None where the request named its method.
    """

    prompt: Tensor
    params: tuple[GenerationParams, ...]
    frames: tuple[Frame, ...]
    source: Source | None
    depth: DepthUsed | None
    remember: bool
    schema_field: str = Output.schema_field
    notes: tuple[Note, ...] = ()
    salt: str | None = None
    geometry: tuple[FrameGeometry, ...] = ()
    episode: Remembered | None = None
    because: str | None = None

    @property
    def plan(self) -> MergePlan:
        """Return the plan of the first frame; others differ from it by their grid at most."""
        return self.frames[0].planned.plan

    @property
    def spec(self) -> MergeSpec:
        """Return how all frames are merged."""
        return self.plan.spec

    @property
    def images(self) -> int:
        """Count the images, the frames of a video among them."""
        if self.episode is not None:
            return 1
        return sum(frame.planned.layout.num_frames for frame in self.frames)

    @property
    def views(self) -> int:
        """Count what the encoder sees: tiles of images, and frames of a video."""
        if self.episode is not None:
            return 1
        return sum(len(frame.planned.layout.views) for frame in self.frames)

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
    """Hold one answer; logprobs: of its tokens, if they were asked for. token_ids: without the stop token."""

    text: str
    completion_tokens: int
    finish_reason: Literal["stop", "length"]
    logprobs: tuple[TokenLogprob, ...] | None = None
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Inferred:
    """Hold the answers to one prompt and how they came about.

    cached: no encoder ran for them. depth: as in the response. visuals: the encoded frames, where nothing was
    to be answered yet. trace: what a job that traces gets, and no answers. attention: of the first answer to
    each visual token of the prompt, where it was asked for and is known.
    """

    answers: tuple[Written, ...]
    prompt_tokens: int
    batch_size: int
    cached: bool
    depth: DepthUsed | None
    visuals: tuple[Visual, ...] = ()
    trace: MergeTrace | None = None
    attention: tuple[float, ...] | None = None

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
    """Plan the merging by the headers, then decode and prepare the images one by one to save memory.

    tenant: the key whose cached frames may be used. costs: counts the decoded pixels, also of a request that
    is then refused. check: called between images; it may raise to stop. Raises ServiceError, DepthError,
    PlanError, and VlmError for a prompt that is too long or a schema that cannot be used.
    """
    vlm = models.vlm
    headers = [
        image_header(data, settings.max_image_px, request.image_name(at))
        for at, data in enumerate(request.images)
    ]
    sizes = [(header.height, header.width) for header in headers]
    first, because = None, None
    if request.fields.method == AUTO:
        if models.calibration is None:
            raise no_calibration()
        first = decode_image(request.images[0], settings.max_image_px, request.image_name(0), headers[0])
        timer.mark("decode")
        request, because = decided(request, models.calibration, first)
    fields = request.fields
    planned = plan_request(vlm, fields, request.wants_depth, sizes)
    source = depth_source(request, planned[0].plan, settings)
    if request.merges_frames:
        require_followed(vlm, planned[0])
        params, prompt = (), torch.zeros(1, 0, dtype=torch.int64)
    else:
        params, prompt = params_of(vlm, request, settings), _prompt(vlm, request, planned)
    timer.mark("preprocess")
    options = EncodeOptions(source, tenant, fields.cache, request.merges_frames)
    frames, files = [], []
    geometry: list[FrameGeometry] = []
    images: list[Image.Image] = []  # of the frame that comes next
    depths: list[DepthMap] = []
    is_turned = False
    for at, data in enumerate(request.images):
        check()
        image = first if at == 0 else None
        if image is None:
            image = decode_image(data, settings.max_image_px, request.image_name(at), headers[at])
        with _depth_named(request, at):
            depth = read_depth_of(request, at, image, settings)
        timer.mark("decode")
        if costs is not None:
            costs.pixels += image.width * image.height * (1 if depth is None else 2)
        if depth is not None:
            files.append(of_report(note_alignment(depth[1], depth[0], image)))
            depths.append(depth[0])
            timer.mark("depth")
        images.append(image)
        is_turned |= sizes[at] != (image.height, image.width)  # by its EXIF orientation
        sizes[at] = image.height, image.width
        if len(images) < planned[len(frames)].layout.num_frames:
            continue
        if is_turned:
            planned, is_turned = plan_request(vlm, fields, request.wants_depth, sizes), False
            prompt = prompt if request.merges_frames else _prompt(vlm, request, planned)
        own = planned[len(frames)]
        if request.merges_frames:
            measured = depths[0] if depths else None
            is_estimated = source == "estimate"
            geometry.append(frame_geometry(vlm, request, at, own, sizes[at], measured, is_estimated))
        spatial = spatial_for(own, source, depths)
        timer.mark("depth" if source == "client" else "preprocess")
        frames.append(to_frame(models, images, own, options, spatial))
        timer.mark("preprocess")
        images, depths = [], []
    check_times(tuple(geometry))
    described, notes = of_sent(source, files)
    return Prepared(
        prompt,
        params,
        tuple(frames),
        source,
        described,
        fields.cache,
        request.output.schema_field,
        notes,
        salt_of(tenant, fields.cache),
        tuple(geometry),
        because=because,
    )


def salt_of(tenant: str | None, remember: bool) -> str | None:
    """Return a digest of the key that asks, or something new where nothing may be remembered."""
    if not remember:
        return secrets.token_hex(16)
    return None if tenant is None else hashlib.sha256(b"key " + tenant.encode()).hexdigest()


@contextmanager
def _depth_named(request: VqaRequest, at: int) -> Iterator[None]:
    """Let errors about a depth file name it as the client did, such as depths[2]."""
    try:
        yield
    except DepthError as error:
        if error.field == "depth":
            error.field = request.depth_name(at)
        raise


def _prompt(vlm: Vlm, request: VqaRequest, planned: Sequence[Planned]) -> Tensor:
    """Write the prompt, [1, T] on the CPU; refuse one that leaves no room for an answer."""
    spelled = [own.spelled for own in planned]
    if request.turns is None:
        ids = prompt_ids(vlm, request.fields.question, spelled)
    else:
        is_video = any(own.layout.kind == "video" for own in planned)
        ids = chat_ids(vlm, with_one_video(request.turns) if is_video else request.turns, spelled)
    require_room(vlm, [ids])
    return ids.cpu()


def params_of(vlm: Vlm, request: VqaRequest, settings: Settings) -> tuple[GenerationParams, ...]:
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
