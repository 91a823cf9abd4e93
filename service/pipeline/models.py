"""The loaded models of a process, and their frame cache.

Loading belongs in the model thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.pipeline.calibration import Calibration, read_calibration, require_same
from service.pipeline.estimation import Estimation, load_estimation
from service.pipeline.frame_cache import FrameCache
from service.settings import Settings
from vlm import Vlm, load_vlm
from vlm.model import Parts


@dataclass(frozen=True, eq=False)
class Models:
    """Hold the language model, the depth estimation (None if off), the frame cache, and the calibration."""

    vlm: Vlm
    estimation: Estimation | None
    frames: FrameCache
    calibration: Calibration | None = None


def load_models(settings: Settings) -> Models:
    """Load what these settings name, without the language model where servers have it.

    Raises VlmError, EstimatorError and CalibrationError.
    """
    vlm = load_model(settings, "all" if settings.language == "torch" else "vision")
    calibration = load_calibration(settings, vlm)
    return Models(vlm, load_estimation(settings), FrameCache(settings.frame_cache_bytes), calibration)


def load_calibration(settings: Settings, vlm: Vlm) -> Calibration | None:
    """Read the calibration that these settings name, None without one. Raises CalibrationError."""
    if settings.calibration is None:
        return None
    calibration = read_calibration(settings.calibration)
    require_same(calibration, vlm)
    return calibration


def load_model(settings: Settings, parts: Parts = "all") -> Vlm:
    """Load the vision-language model that these settings name. Raises VlmError."""
    return load_vlm(
        settings.model,
        settings.device,
        settings.torch_dtype,
        require_manifest=settings.require_manifest,
        parts=parts,
        device_map=settings.device_map,
        device_memory=settings.device_memory,
    )
