"""Load a `Vlm` by name: the embedded checkpoint, a folder, or a Hugging Face hub id.

Only safetensors weights are loaded, with code of the installed transformers; no code of a checkpoint is run.
transformers takes seconds to import, so that is left to the functions that need it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from tosa import EncoderShape
from vlm.checkpoint_files import CheckpointReader, available_device, three
from vlm.model import ImageSettings, Vlm, VlmError
from vlm.prompt import prompt_ids
from vlm.vision import encoder_shape

if TYPE_CHECKING:
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        PreTrainedConfig,
        PreTrainedTokenizerFast,
    )

EMBEDDED = {"room-tiny": Path(__file__).parent / "checkpoints" / "room-tiny"}
READER = CheckpointReader(EMBEDDED, ("*.json", "*.jinja", "*.txt"), VlmError)


def load_vlm(
    id_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    require_manifest: bool = False,
) -> Vlm:
    """Load a LlavaOnevision checkpoint with a SigLIP tower.

    `id_or_path`: an embedded name ("room-tiny"), a folder in Hugging Face format, or a hub id ("owner/name").
    `require_manifest`: refuse what has no SHA256SUMS; where there is one it always counts. Raises VlmError;
    its codes are listed there.
    """
    source, device = str(id_or_path), available_device(device, VlmError)
    folder, commit = READER.find(source, require_manifest)
    config = _read_config(source, folder)
    shape = READER.or_broken(source, lambda: encoder_shape(config))
    image_processor = _read_image_settings(source, folder, config)
    revision = READER.fetch_weights(source, folder, commit)
    tokenizer = _load_tokenizer(source, folder)
    model = _load_model(source, folder, config, dtype)
    vlm = Vlm(
        id=source,
        revision=revision,
        model=model.to(device),  # pyright: ignore[reportArgumentType]
        tokenizer=tokenizer,
        image_processor=image_processor,
        chat_template=READER.or_broken(source, lambda: _chat_template(folder, tokenizer)),
        shape=shape,
        eos_token_ids=_eos_token_ids(source, model, tokenizer),
        device=device,
        dtype=dtype,
    )
    _try_prompt(vlm)
    return vlm


def load_shape(id_or_path: str | Path) -> EncoderShape:
    """Read the shape of a checkpoint's vision tower, without its weights. Raises VlmError as `load_vlm`."""
    source = str(id_or_path)
    config = _read_config(source, READER.find(source)[0])
    return READER.or_broken(source, lambda: encoder_shape(config))


def _read_config(source: str, folder: Path) -> LlavaOnevisionConfig:
    from transformers import LlavaOnevisionConfig

    raw = READER.read_json(source, folder / "config.json")
    if raw.get("model_type") != "llava_onevision":
        kind = raw.get("model_type", "of unknown type")
        raise VlmError("unsupported_model", f"{source} is {kind}; only llava_onevision models can be loaded")
    config = READER.or_broken(source, lambda: LlavaOnevisionConfig.from_dict(raw))
    tower = cast("PreTrainedConfig", config.vision_config).model_type
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
    raw = READER.read_json(source, folder / "preprocessor_config.json")
    size_px = cast("PreTrainedConfig", config.vision_config).image_size
    size = raw.get("size", {})
    if not isinstance(size, dict) or any(side != size_px for side in size.values()):
        raise READER.broken(source, f"preprocessor_config.json says size {size} for a tower of {size_px} px")
    return READER.or_broken(
        source,
        lambda: ImageSettings(
            size_px=size_px,
            mean=three(raw["image_mean"] if raw.get("do_normalize", True) else 0.0),
            std=three(raw["image_std"] if raw.get("do_normalize", True) else 1.0),
            rescale=float(raw.get("rescale_factor", 1 / 255)) if raw.get("do_rescale", True) else 1.0,
            resample=int(raw["resample"]),
        ),
    )


def _load_tokenizer(source: str, folder: Path) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    return READER.or_broken(source, lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False))


def _load_model(
    source: str, folder: Path, config: LlavaOnevisionConfig, dtype: torch.dtype
) -> LlavaOnevisionForConditionalGeneration:
    from transformers import LlavaOnevisionForConditionalGeneration

    from_pretrained: Callable[..., Any] = LlavaOnevisionForConditionalGeneration.from_pretrained
    model, report = READER.or_broken(
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
        raise READER.broken(source, f"{len(missing)} weights are missing, {missing[0]} among them")
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
        raise READER.broken(
            source, "neither generation_config.json nor the tokenizer says how an answer ends"
        )
    return frozenset(eos if isinstance(eos, list) else [eos])


def _try_prompt(vlm: Vlm) -> None:
    """Try one prompt, so that loading fails and not a request; also sets the tokenizer's one mode."""
    rows = vlm.text_config.vocab_size
    if len(vlm.tokenizer) > rows:
        raise READER.broken(
            vlm.id, f"the tokenizer has {len(vlm.tokenizer)} tokens, the language model {rows}"
        )
    try:
        prompt_ids(vlm, "How many?", [1, 1])
    except Exception as error:  # a template is a program of the checkpoint
        raise READER.broken(vlm.id, str(error)) from error
