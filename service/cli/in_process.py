"""What commands need to answer without a server: settings, a checked request, and the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.pipeline.models import Models
    from service.pipeline.prepare import Prepared
    from service.request.schemas import VqaFields, VqaRequest
    from service.settings import Settings
    from service.timing import StageTimer


def load_settings(**given: Any) -> Settings:
    """Read the settings of this process; what is given wins over the environment."""
    from service.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


def read_request(
    fields: Mapping[str, Any], images: Sequence[Path], depths: Sequence[Path], settings: Settings
) -> VqaRequest:
    """Check the fields and read the files. Raises ServiceError, OSError."""
    from service.request.schemas import VqaRequest
    from service.request.validation import check_counts

    request = VqaRequest(
        read_fields(fields, settings),
        tuple(path.read_bytes() for path in images),
        tuple(path.read_bytes() for path in depths),
    )
    check_counts(request, settings)
    return request


def read_fields(fields: Mapping[str, Any], settings: Settings) -> VqaFields:
    """Check fields given as text; those that were not given are left out. Raises ServiceError."""
    from service.request.validation import check_fields

    return check_fields(given_fields(fields), settings, strict=False)


def given_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that were given, and their options by name. Raises ServiceError."""
    from service.errors import ServiceError
    from service.request.coercion import option

    given = {name: value for name, value in fields.items() if value not in (None, ())}
    try:
        pairs = [option(text) for text in given.pop("options", [])]
    except ValueError:
        raise ServiceError("bad_option", reason="not_name_value", field="options") from None
    return {**given, **({"options": dict(pairs)} if pairs else {})}


def load_models_here(settings: Settings) -> Models:
    """Load the model these settings name, without an estimator or a frame cache.

    Raises VlmError, CalibrationError.
    """
    from transformers.utils.logging import disable_progress_bar

    from service.pipeline.frame_cache import FrameCache
    from service.pipeline.models import Models, load_calibration, load_model

    disable_progress_bar()
    vlm = load_model(settings)
    return Models(vlm, None, FrameCache(0), load_calibration(settings, vlm))


def prepare_here(
    models: Models, request: VqaRequest, settings: Settings, timer: StageTimer
) -> tuple[Models, Prepared]:
    """Prepare a request in this process; an estimator is loaded only if the request needs one.

    Raises ServiceError, DepthError, EstimatorError, PlanError, VlmError.
    """
    from service.pipeline.estimation import load_estimation
    from service.pipeline.prepare import prepare

    prepared = prepare(models, request, settings, timer)
    if prepared.source == "estimate" and models.estimation is None:
        models = replace(models, estimation=load_estimation(settings))
    timer.skip()
    return models, prepared
