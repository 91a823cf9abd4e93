"""Write what engines need that serve language models: the language model of a checkpoint, known answers.

Models whose positions are in space are loaded whole, as they are, since their language model alone has none.
"""

from __future__ import annotations

import errno
import os
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlm.checkpoint_files.formats import WEIGHT_FILES
from vlm.description import READER
from vlm.dtypes import short
from vlm.load import load_vlm
from vlm.lora import is_adapter
from vlm.model import Vlm, VlmError
from vlm.probe import probe, write_probe
from vlm.weights import require_embeds


@dataclass(frozen=True)
class LanguageCheckpoint:
    """What was written. revision: of the checkpoint that it is a part of; max_tokens: prompt and answer.

    model: what an engine loads, the folder or the checkpoint as it is. pictures: the engine gets pictures,
    not embeddings of whole prompts. needs_tower: it has to load the tower too, which then stays idle.
    """

    folder: Path
    model: str
    model_class: str
    parameters: int
    dtype: str
    max_tokens: int
    revision: str
    pictures: bool = False
    needs_tower: bool = False


def write_language_model(
    id_or_path: str | Path, out: Path, *, require_manifest: bool = False
) -> LanguageCheckpoint:
    """Write the language model of a checkpoint, its tokenizer, and known answers (`vlm.probe`) to a folder.

    Known answers alone where the checkpoint is loaded as it is. Sampling settings of the checkpoint are left
    out: every request says its own. Raises VlmError as
    `load_vlm`, unsupported_language and unsupported_quantisation; OSError, and for a folder that has files.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise FileExistsError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(out))
    vlm = load_vlm(id_or_path, require_manifest=require_manifest)
    require_embeds(vlm.id, vlm.family)
    _require_plain(vlm)
    if vlm.family.language_input == "pictures":
        _require_whole(vlm.id, READER.find(str(id_or_path), require_manifest)[0])
        return _as_it_is(vlm, out)
    model = _causal(vlm)
    model.save_pretrained(out)
    for weights in out.glob(WEIGHT_FILES):  # safetensors lets only the owner read them
        weights.chmod((out / "config.json").stat().st_mode)
    vlm.tokenizer.save_pretrained(out)
    write_probe(probe(vlm), out)
    return LanguageCheckpoint(
        folder=out,
        model=str(out),
        model_class=type(model).__name__,
        parameters=sum(each.numel() for each in model.parameters()),
        dtype=short(vlm.dtype),
        max_tokens=vlm.max_tokens,
        revision=vlm.revision,
    )


def _as_it_is(vlm: Vlm, out: Path) -> LanguageCheckpoint:
    """Write known answers alone."""
    write_probe(probe(vlm), out)
    return LanguageCheckpoint(
        folder=out,
        model=str(vlm.family.folder),
        model_class=vlm.family.model_class,
        parameters=sum(each.numel() for each in vlm.model.parameters()),
        dtype=short(vlm.dtype),
        max_tokens=vlm.max_tokens,
        revision=vlm.revision,
        pictures=True,
        needs_tower=vlm.family.num_levels > 0,
    )


def _require_whole(source: str, folder: Path) -> None:
    if is_adapter(folder):
        message = f"{source} is an adapter, and engines load this model as it is: merge it into its model"
        raise VlmError("unsupported_language", message)


def _require_plain(vlm: Vlm) -> None:
    if getattr(vlm.model.config, "quantization_config", None) is not None:
        message = (
            f"the weights of {vlm.id} are quantised: name the checkpoint that it was made from, and let the "
            "engine quantise its language model"
        )
        raise VlmError("unsupported_quantisation", message)


def _causal(vlm: Vlm) -> Any:
    """Put the language model and its head into the class that transformers has for them alone."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    head: Any = vlm.model.lm_head
    config: Any = deepcopy(vlm.text_config)
    config.tie_word_embeddings = head.weight is vlm.model.get_input_embeddings().weight
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=vlm.dtype)
    getattr(model, model.base_model_prefix).load_state_dict(
        vlm.family.decoder(vlm.core).state_dict(), strict=True, assign=True
    )
    model.set_output_embeddings(head)
    model.generation_config = GenerationConfig(
        eos_token_id=sorted(vlm.eos_token_ids),
        bos_token_id=vlm.tokenizer.bos_token_id,
        pad_token_id=vlm.tokenizer.pad_token_id,
    )
    return model
