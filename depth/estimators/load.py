"""Load an estimator by name: the embedded checkpoint, a folder, or a Hugging Face hub id.

Only safetensors weights are loaded, with code of the installed transformers; no code of a checkpoint is run.
transformers takes seconds to import, so that is left to the functions that need it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from depth.estimate import EstimatorError, estimate
from depth.estimators.families import FAMILIES, REFUSED, Family
from depth.estimators.licence import licence_of, read_card, why_non_commercial
from depth.estimators.model import LoadedEstimator
from depth.estimators.preprocess import ImageSettings
from vlm.checkpoint_files import CheckpointReader, available_device, three

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

EMBEDDED = {"room-depth-tiny": Path(__file__).parent.parent / "checkpoints" / "room-depth-tiny"}
READER = CheckpointReader(EMBEDDED, ("*.json", "README.md"), EstimatorError)
BATCH_SIZE = 16
# The first fusion layer has no residual input, so the weights for it are never used and often not published.
NEVER_USED = re.compile(r"fusion_stage\.(layers|intermediate)\.0\.residual_layer1\.")

log = logging.getLogger(__name__)


def load_depth_estimator(
    id_or_path: str | Path = "room-depth-tiny",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    allow_non_commercial: bool = False,
    size_px: int = 252,
    require_manifest: bool = False,
) -> LoadedEstimator:
    """Load a depth estimator of transformers and log its licence.

    `id_or_path`: an embedded name ("room-depth-tiny"), a folder in Hugging Face format, or a hub id
    ("owner/name"). `size_px`: side of the square it sees; the nearest that the model can take is used. A
    checkpoint known to exclude commercial use is refused unless allowed; one that names no licence is loaded
    with a warning. `require_manifest`: refuse what has no SHA256SUMS; where there is one it always counts.
    Raises EstimatorError; its codes are listed there.
    """
    source, device = str(id_or_path), available_device(device, EstimatorError)
    if size_px < 1:
        raise EstimatorError("invalid_size", "the size of a depth estimator's view must be at least 1 px")
    folder, commit = READER.find(source, require_manifest)
    config, family = _read_config(source, folder)
    licence = _check_licence(source, folder, allow_non_commercial)
    settings = _read_image_settings(source, folder, family)
    revision = READER.fetch_weights(source, folder, commit)
    estimator = LoadedEstimator(
        id=source,
        revision=revision,
        licence=licence,
        kind=READER.or_broken(source, lambda: family.kind(config)),
        size_px=READER.or_broken(source, lambda: family.size_px(config, size_px)),
        batch_size=1 if family.one_by_one(config) else BATCH_SIZE,
        model=_load_model(source, folder, config, dtype).to(device),  # pyright: ignore[reportArgumentType]
        image_settings=settings,
        family=family,
        device=device,
        dtype=dtype,
    )
    _try(estimator)
    return estimator


def _read_config(source: str, folder: Path) -> tuple[PreTrainedConfig, Family]:
    from transformers import AutoConfig

    raw = READER.read_json(source, folder / "config.json")
    kind = raw.pop("model_type", None)
    if kind in REFUSED:
        raise EstimatorError(
            "unsupported_model", f"{source} is {kind}, which cannot be used: {REFUSED[kind]}"
        )
    if kind not in FAMILIES:
        names = ", ".join(FAMILIES)
        raise EstimatorError(
            "unsupported_model",
            f"{source} is {kind or 'of unknown type'}; depth estimators that can be loaded: {names}",
        )
    return READER.or_broken(source, lambda: AutoConfig.for_model(kind, **raw)), FAMILIES[kind]


def _check_licence(source: str, folder: Path, allow_non_commercial: bool) -> str | None:
    card = read_card(folder)
    licence, reason = licence_of(card), why_non_commercial(source, card)
    if reason and not allow_non_commercial:
        raise EstimatorError(
            "licence_refused",
            f"{source} may not be used commercially: {reason}; set allow_non_commercial if you may use it",
        )
    if reason:
        log.warning("depth estimator %s may not be used commercially: %s", source, reason)
    elif licence is None:
        log.warning("depth estimator %s names no licence: find out whether you may use it", source)
    else:
        log.info("depth estimator %s has the licence %s", source, licence)
    return licence


def _read_image_settings(source: str, folder: Path, family: Family) -> ImageSettings:
    raw = READER.read_json(source, folder / "preprocessor_config.json")
    normalise = raw.get("do_normalize", family.normalises)
    return READER.or_broken(
        source,
        lambda: ImageSettings(
            mean=three(raw.get("image_mean", 0.5) if normalise else 0.0),
            std=three(raw.get("image_std", 0.5) if normalise else 1.0),
            rescale=float(raw.get("rescale_factor", 1 / 255)) if raw.get("do_rescale", True) else 1.0,
            resample=int(raw.get("resample", Image.Resampling.BICUBIC)),
            pad=family.pads and raw.get("do_pad", True),
        ),
    )


def _load_model(source: str, folder: Path, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForDepthEstimation

    from_pretrained: Callable[..., Any] = AutoModelForDepthEstimation.from_pretrained
    model, report = READER.or_broken(
        source,
        lambda: from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        ),
    )
    missing = sorted(key for key in report["missing_keys"] if not NEVER_USED.search(key))
    if missing:  # transformers would leave these at random values
        raise READER.broken(source, f"{len(missing)} weights are missing, {missing[0]} among them")
    return model.eval()


def _try(estimator: LoadedEstimator) -> None:
    """Estimate one image, to fail now rather than at the first request."""
    grey = Image.new("RGB", (estimator.size_px, estimator.size_px), (128, 128, 128))
    READER.or_broken(estimator.id, lambda: estimate(estimator, [grey]))
