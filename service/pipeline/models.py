"""The loaded models of a process, and their frame cache.

Loading belongs in the model thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.pipeline.estimation import Estimation, load_estimation
from service.pipeline.frame_cache import FrameCache
from service.settings import Settings
from vlm import Vlm, load_vlm
from vlm.model import Parts


@dataclass(frozen=True, eq=False)
class Models:
    """Hold the language model, the depth estimation (None if off), and the frame cache."""

    vlm: Vlm
    estimation: Estimation | None
    frames: FrameCache


def load_models(settings: Settings) -> Models:
    """Load what these settings name, without the language model where servers have it.

    Raises VlmError and EstimatorError.
    """
    vlm = load_model(settings, "all" if settings.language == "torch" else "vision")
    return Models(vlm, load_estimation(settings), FrameCache(settings.frame_cache_bytes))


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
