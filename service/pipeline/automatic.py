"""method=auto: put the setting that the calibration and the picture ask for in the place of the word."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from service.errors import ServiceError
from service.pipeline.calibration import Calibration, choose
from service.pipeline.picture_noise import noise_of
from service.request.schemas import VqaRequest


def decided(request: VqaRequest, calibration: Calibration, first: Image.Image) -> tuple[VqaRequest, str]:
    """Return the request with the chosen method, and why it was chosen; the first picture decides."""
    fields = request.fields
    chosen = choose(
        calibration,
        noise_of(first),
        bool(request.depths) and request.wants_depth,
        fields.target_ms,
        fields.target_accuracy,
    )
    targets = {"target_ms": None, "target_accuracy": None}
    return replace(request, fields=fields.model_copy(update={**targets, **chosen.merge})), chosen.because


def no_calibration() -> ServiceError:
    """Return the refusal of method=auto where nothing was measured."""
    return ServiceError("no_calibration", field="method")
