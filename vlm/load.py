"""From a name to a `Vlm`: the embedded checkpoint, a folder, or a Hugging Face hub id.

Only safetensors weights and only code of the installed transformers: nothing a checkpoint brings is executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from transformers import (
    AutoTokenizer,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from vlm.model import ImageSettings, Vlm, VlmError
from vlm.prompt import prompt_ids
from vlm.vision import encoder_shape

EMBEDDED = {"room-tiny": Path(__file__).parent / "checkpoints" / "room-tiny"}
SETTINGS_FILES = ["*.json", "*.jinja", "*.txt"]
WEIGHT_FILES = "*.safetensors"

T = TypeVar("T")


def load_vlm(
    id_or_path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Vlm:
    """Load a LlavaOnevision checkpoint with a SigLIP tower.

    `id_or_path`: an embedded name ("room-tiny"), a folder in Hugging Face format, or a hub id ("owner/name").
    Raises VlmError; its codes are listed there.
    """
    source, device = str(id_or_path), _available(device)
    folder, commit = _find(source)
    config = _read_config(source, folder)
    shape = _or_broken(source, lambda: encoder_shape(config))
    image_processor = _read_image_settings(source, folder, config)
    if commit is not None:
        _download(source, patterns=WEIGHT_FILES, revision=commit)
    _require_safetensors(source, folder)
    tokenizer = _or_broken(source, lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    model = _load_model(source, folder, config, dtype)
    vlm = Vlm(
        id=source,
        revision=commit or _weights_hash(folder),
        model=model.to(device),  # pyright: ignore[reportArgumentType]
        tokenizer=tokenizer,
        image_processor=image_processor,
        chat_template=_or_broken(source, lambda: _chat_template(folder, tokenizer)),
        shape=shape,
        eos_token_ids=_eos_token_ids(source, model, tokenizer),
        device=device,
        dtype=dtype,
    )
    _try_prompt(vlm)
    return vlm


def _available(device: str | torch.device) -> torch.device:
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise VlmError("device_unavailable", "device cuda was asked for, but torch finds no CUDA device")
    return device


def _find(source: str) -> tuple[Path, str | None]:
    """Return the checkpoint's folder and hub commit; of a hub id only the settings are downloaded yet."""
    if source in EMBEDDED:
        return EMBEDDED[source], None
    if source and Path(source).is_dir():
        return Path(source), None
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        names = ", ".join(EMBEDDED)
        raise VlmError(
            "model_not_found",
            f"{source} is not a folder, not an embedded checkpoint ({names}) and not a hub id (owner/name)",
        )
    folder = _download(source, patterns=SETTINGS_FILES)
    return folder, folder.name


def _download(source: str, patterns: str | list[str], revision: str | None = None) -> Path:
    """Fetch files of a hub id into the ordinary cache; the folder's name is the commit."""
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except (RepositoryNotFoundError, HFValidationError) as error:
        message = f"the hub has no model {source}, or it needs a login"
        raise VlmError("model_not_found", message) from error
    except Exception as error:
        message = f"{source} is not in the local cache and could not be downloaded ({type(error).__name__})"
        raise VlmError("model_not_found", message) from error


def _read_config(source: str, folder: Path) -> LlavaOnevisionConfig:
    raw = _read_json(source, folder / "config.json")
    if raw.get("model_type") != "llava_onevision":
        kind = raw.get("model_type", "of unknown type")
        raise VlmError("unsupported_model", f"{source} is {kind}; only llava_onevision models can be loaded")
    config = _or_broken(source, lambda: LlavaOnevisionConfig.from_dict(raw))
    tower = cast(PreTrainedConfig, config.vision_config).model_type
    if tower != "siglip_vision_model":
        raise VlmError(
            "unsupported_tower", f"the vision tower of {source} is {tower}; only SigLIP is supported"
        )
    if config.vision_feature_select_strategy != "full":
        raise VlmError(
            "unsupported_model", f'{source} drops visual tokens (vision_feature_select_strategy "default")'
        )
    return config


def _read_image_settings(source: str, folder: Path, config: LlavaOnevisionConfig) -> ImageSettings:
    raw = _read_json(source, folder / "preprocessor_config.json")
    size_px = cast(PreTrainedConfig, config.vision_config).image_size
    size = raw.get("size", {})
    if not isinstance(size, dict) or any(side != size_px for side in size.values()):
        raise _broken(source, f"preprocessor_config.json says size {size} for a tower of {size_px} px")
    return _or_broken(
        source,
        lambda: ImageSettings(
            size_px=size_px,
            mean=_three(raw["image_mean"] if raw.get("do_normalize", True) else 0.0),
            std=_three(raw["image_std"] if raw.get("do_normalize", True) else 1.0),
            rescale=float(raw.get("rescale_factor", 1 / 255)) if raw.get("do_rescale", True) else 1.0,
            resample=int(raw["resample"]),
        ),
    )


def _three(value: float | list[float]) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, list) else [value] * 3
    return float(red), float(green), float(blue)


def _require_safetensors(source: str, folder: Path) -> None:
    if not any(folder.glob(WEIGHT_FILES)):
        raise VlmError(
            "no_safetensors",
            f"{source} has no .safetensors weights; pickle files (.bin, .pt, .pth) are never loaded",
        )


def _load_model(
    source: str, folder: Path, config: LlavaOnevisionConfig, dtype: torch.dtype
) -> LlavaOnevisionForConditionalGeneration:
    from_pretrained: Callable[..., Any] = LlavaOnevisionForConditionalGeneration.from_pretrained
    model, report = _or_broken(
        source,
        lambda: from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        ),
    )
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would leave these at random values
        raise _broken(source, f"{len(missing)} weights are missing, {missing[0]} among them")
    return model.eval()


def _chat_template(folder: Path, tokenizer: PreTrainedTokenizerFast) -> str | None:
    """Prefer the template with content parts, which older checkpoints keep beside the tokenizer's own."""
    beside = folder / "chat_template.json"
    if beside.is_file() and not (folder / "chat_template.jinja").is_file():
        return json.loads(beside.read_text(encoding="utf-8"))["chat_template"]
    return tokenizer.get_chat_template() if tokenizer.chat_template else None


def _eos_token_ids(
    source: str, model: LlavaOnevisionForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> frozenset[int]:
    eos: Any = model.generation_config.eos_token_id if model.generation_config is not None else None
    if eos is None:
        eos = tokenizer.eos_token_id
    if eos is None:
        raise _broken(source, "neither generation_config.json nor the tokenizer says how an answer ends")
    return frozenset(eos if isinstance(eos, list) else [eos])


def _try_prompt(vlm: Vlm) -> None:
    """Fail now rather than at the first question; also leaves the tokenizer in the one mode requests use."""
    rows = vlm.text_config.vocab_size
    if len(vlm.tokenizer) > rows:
        raise _broken(vlm.id, f"the tokenizer has {len(vlm.tokenizer)} tokens, the language model {rows}")
    _or_broken(vlm.id, lambda: prompt_ids(vlm, "How many?", [1, 1]))


def _weights_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob(WEIGHT_FILES)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _read_json(source: str, path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise _broken(source, f"{path.name} is missing")
    raw = _or_broken(source, lambda: json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(raw, dict):
        raise _broken(source, f"{path.name} is not a JSON object")
    return raw


def _or_broken(source: str, read: Callable[[], T]) -> T:
    """Read part of a checkpoint; whatever goes wrong inside transformers is the checkpoint's fault."""
    try:
        return read()
    except VlmError:
        raise
    except Exception as error:
        raise _broken(source, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def _broken(source: str, reason: str) -> VlmError:
    return VlmError("broken_checkpoint", f"{source} cannot be loaded: {reason}")
