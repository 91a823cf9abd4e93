"""Load a `Vlm` by name: the embedded checkpoint, a folder, or a Hugging Face hub id.

Only safetensors weights are loaded, with code of the installed transformers; no code of a checkpoint is run.
transformers takes seconds to import, so that is left to the functions that need it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tosa import EncoderShape, MergeSpec
from vlm.checkpoint_files import CheckpointReader, available_device
from vlm.families import FAMILIES, VIEWS, Family, Views, family_class
from vlm.model import Vlm, VlmError
from vlm.prompt import prompt_ids
from vlm.visuals import layouts, plan_views, spell

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

EMBEDDED = {"room-tiny": Path(__file__).parent / "checkpoints" / "room-tiny"}
READER = CheckpointReader(EMBEDDED, ("*.json", "*.jinja", "*.txt"), VlmError)
DEFAULT_VIEWS = "default_views"
"""What config.json may say of the views that a checkpoint was trained on: one of VIEWS."""
TRIED_SIZE = (96, 128)  # height and width in px of the image in the prompt that loading tries


def load_vlm(
    id_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    require_manifest: bool = False,
) -> Vlm:
    """Load a checkpoint of one of the FAMILIES.

    `id_or_path`: an embedded name ("room-tiny"), a folder in Hugging Face format, or a hub id ("owner/name").
    `require_manifest`: refuse what has no SHA256SUMS; where there is one it always counts. Raises VlmError;
    its codes are listed there.
    """
    source, device = str(id_or_path), available_device(device, VlmError)
    folder, commit = READER.find(source, require_manifest)
    config = _read_config(source, folder)
    family = _family(source, folder, config)
    shape = READER.or_broken(source, lambda: family.shape(family.whole(TRIED_SIZE)))
    settings = READER.or_broken(source, lambda: family.settings)
    revision = READER.fetch_weights(source, folder, commit)
    tokenizer = _load_tokenizer(source, folder)
    family.tokenizer = tokenizer
    model = _load_model(source, folder, config, family.model_class, dtype)
    vlm = Vlm(
        id=source,
        revision=revision,
        model=model.to(device),  # pyright: ignore[reportArgumentType]
        tokenizer=tokenizer,
        image_processor=settings,
        chat_template=READER.or_broken(source, lambda: _chat_template(folder, tokenizer)),
        shape=shape,
        eos_token_ids=_eos_token_ids(source, model, tokenizer),
        device=device,
        dtype=dtype,
        family=family,
        default_views=_default_views(source, config),
    )
    _try_prompt(vlm)
    return vlm


def load_shape(id_or_path: str | Path) -> EncoderShape:
    """Read the shape of a checkpoint's vision tower, without its weights. Raises VlmError as `load_vlm`."""
    source = str(id_or_path)
    folder = READER.find(source)[0]
    family = _family(source, folder, _read_config(source, folder))
    return READER.or_broken(source, lambda: family.shape(family.whole(TRIED_SIZE)))


def _read_config(source: str, folder: Path) -> PreTrainedConfig:
    raw = READER.read_json(source, folder / "config.json")
    kind = raw.get("model_type", "of unknown type")
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        message = f"{source} is {kind}; only these model types can be loaded: {known}"
        raise VlmError("unsupported_model", message, choices=tuple(FAMILIES))
    from transformers import CONFIG_MAPPING

    return READER.or_broken(source, lambda: CONFIG_MAPPING[kind].from_dict(raw))


def _family(source: str, folder: Path, config: PreTrainedConfig) -> Family:
    """Describe the checkpoint; refuse what the family does not run."""
    try:
        return READER.or_broken(source, lambda: family_class(config.model_type)(config, folder))
    except VlmError as error:
        if error.code == "broken_checkpoint":
            raise
        raise VlmError(error.code, f"{source} cannot be loaded: {error}", choices=error.choices) from error


def _default_views(source: str, config: PreTrainedConfig) -> Views:
    said = getattr(config, DEFAULT_VIEWS, "auto")
    if said not in VIEWS:
        raise READER.broken(source, f"config.json says {DEFAULT_VIEWS} {said!r}, not {', '.join(VIEWS)}")
    return said


def _load_tokenizer(source: str, folder: Path) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    return READER.or_broken(source, lambda: AutoTokenizer.from_pretrained(folder, trust_remote_code=False))


def _load_model(
    source: str, folder: Path, config: PreTrainedConfig, model_class: str, dtype: torch.dtype
) -> PreTrainedModel:
    import transformers

    from_pretrained: Callable[..., Any] = getattr(transformers, model_class).from_pretrained
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


def _eos_token_ids(source: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
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
        tried = [
            spell(vlm, each, plan_views(vlm, MergeSpec(), each)) for each in layouts(vlm, [TRIED_SIZE] * 2)
        ]
        prompt_ids(vlm, "How many?", tried)
    except Exception as error:  # a template is a program of the checkpoint
        raise READER.broken(vlm.id, str(error)) from error
