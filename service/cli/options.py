"""The options that several commands share, and how they become settings, checked fields and a model.

Each option about merging or depth stands here once, under the name of its request field.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from service.pipeline.models import Models
    from service.pipeline.prepare import Prepared
    from service.request.schemas import VqaFields, VqaRequest
    from service.settings import Settings
    from service.timing import StageTimer
    from vlm import Vlm

Command = TypeVar("Command", bound=Callable[..., None])
ImagesOption = Annotated[list[Path], typer.Option("--image", help="JPEG, PNG or WebP; repeat for several.")]
DepthsOption = Annotated[list[Path] | None, typer.Option("--depth", help="One for each image, in order.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Embedded name, folder or hub id.")]
DepthModelOption = Annotated[
    str | None, typer.Option("--depth-model", help="Depth estimator, like --model; none to estimate nothing.")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...")]


class ServeEngine(StrEnum):
    """Name what `serve` runs on."""

    PROCESS = "process"
    RAY = "ray"


EngineOption = Annotated[
    ServeEngine,
    typer.Option(
        "--engine",
        help="process: this one; ray: replicas behind Ray Serve (install the extra named ray).",
    ),
]


def _text(name: str, help_text: str) -> Any:
    return Annotated[str | None, typer.Option(name, help=help_text)]


MERGE_OPTIONS: Mapping[str, Any] = {
    "method": _text("--method", "How to merge: none, tome, tosa, ...; a wrong name lists them."),
    "keep_ratio": _text("--keep-ratio", "Share of visual tokens to keep."),
    "r": _text("--r", "Tokens to remove per layer: 8, or 8,8,4."),
    "r_hw": _text("--r-hw", "Rows and columns to remove per layer, for methods that keep a grid: 2,2."),
    "layers": _text("--layers", "Layers that may merge, counted from 0: 1,2,5."),
    "schedule": _text("--schedule", "constant, decreasing, increasing, or a number in [-1, 1]."),
    "alpha": _text("--alpha", "increase, decrease, uniform, or numbers."),
    "spatial_kernel": _text("--spatial-kernel", "sinusoidal or distance."),
    "options": Annotated[
        list[str] | None, typer.Option("--option", help="Setting of the method's own, name=value; repeat.")
    ],
    "prop_attn": Annotated[
        bool | None, typer.Option("--prop-attn/--no-prop-attn", help="Proportional attention.")
    ],
    "order": _text("--order", "Order of the visual tokens: raster or merge."),
}
READING = {
    "preset": "Where the depth comes from: scannet, tum, realsense:0.001, ...; a wrong name lists them.",
    "scale": "Depth units per metre; guessed if not given.",
    "kind": "metric, inverse or relative; guessed if not given.",
    "invalid": "Numbers of the file that are holes: 65535, or 0,65535.",
}
DEPTH_OPTIONS: Mapping[str, Any] = {
    "depth": _text(
        "--depth-source",
        "client: the files given; estimate: from the image; none: steer by row and column only.",
    ),
    **{f"depth_{name}": _text(f"--depth-{name}", about) for name, about in READING.items()},
}
INSPECT_OPTIONS: Mapping[str, Any] = {
    f"depth_{name}": _text(f"--{name}", about) for name, about in READING.items()
}


def takes(*groups: Mapping[str, Any]) -> Callable[[Command], Command]:
    """Declare the options of these groups for a command, which gets them as **fields, None if not given."""

    def declare(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        named = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.kind is not p.VAR_KEYWORD]
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for group in groups
            for name, annotation in group.items()
        ]
        command.__signature__ = inspect.Signature([*named, *shared])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in (*named, *shared)}
        return command

    return declare


def load_settings(**given: Any) -> Settings:
    """Read the settings of this process; what is given wins over the environment."""
    from service.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


def read_request(
    fields: Mapping[str, Any], images: list[Path], depths: list[Path], settings: Settings
) -> VqaRequest:
    """Check the fields and read the files. Raises ServiceError, OSError."""
    from service.request.schemas import VqaRequest
    from service.request.validation import check_counts

    asked = VqaRequest(
        read_fields(fields, settings),
        tuple(path.read_bytes() for path in images),
        tuple(path.read_bytes() for path in depths),
    )
    check_counts(asked, settings)
    return asked


def read_fields(fields: Mapping[str, Any], settings: Settings) -> VqaFields:
    """Check fields that came as text, leaving out what was not given. Raises ServiceError."""
    from service.errors import ServiceError
    from service.request.coercion import option
    from service.request.validation import check_fields

    given = {name: value for name, value in fields.items() if value not in (None, [])}
    try:
        pairs = [option(text) for text in given.pop("options", [])]
    except ValueError:
        raise ServiceError("bad_option", reason="not_name_value", field="options") from None
    return check_fields({**given, **({"options": dict(pairs)} if pairs else {})}, settings, strict=False)


def load_models_here(settings: Settings) -> Models:
    """Load the model these settings name, no estimator and no memory. Raises VlmError."""
    from service.pipeline.frame_cache import FrameCache
    from service.pipeline.models import Models

    return Models(load_model(settings), None, FrameCache(0))


def prepare_here(
    models: Models, asked: VqaRequest, settings: Settings, timer: StageTimer
) -> tuple[Models, Prepared]:
    """Prepare a request in this process, where an estimator is loaded only if it is needed.

    Raises ServiceError, DepthError, EstimatorError, PlanError, VlmError.
    """
    from service.pipeline.estimation import load_estimation
    from service.pipeline.prepare import prepare

    prepared = prepare(models, asked, settings, timer)
    if prepared.source == "estimate":
        models = replace(models, estimation=load_estimation(settings))
    timer.skip()
    return models, prepared


def load_model(settings: Settings) -> Vlm:
    """Load the model these settings name. Raises VlmError."""
    from transformers.utils.logging import disable_progress_bar

    from vlm import load_vlm

    disable_progress_bar()
    required = settings.require_manifest
    return load_vlm(settings.model, settings.device, settings.torch_dtype, require_manifest=required)
