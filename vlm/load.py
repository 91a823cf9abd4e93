"""Load a `Vlm` by name: the embedded checkpoint, a folder, or a Hugging Face hub id.

Loading fails with one sentence that says what to do, and not a request later on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image

from tosa import MergeSpec
from vlm.checkpoint_files import available_device
from vlm.description import EMBEDDED, READER, Description, describe, load_shape
from vlm.dtypes import own_dtype, short
from vlm.families.agreement import TRIED_SIZE
from vlm.generate import generate
from vlm.lora import WEIGHTS, base_of, is_adapter, merge_adapter, require_no_adapter
from vlm.model import Parts, Vlm, VlmError
from vlm.placement import DeviceMap, Devices, devices_of
from vlm.prompt import prompt_ids
from vlm.quantised import required_dtype
from vlm.sampling import GenerationParams
from vlm.visuals import layouts, plan_views, spell, visual_of
from vlm.weights import load_model, require_embeds, without_language

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["EMBEDDED", "load_shape", "load_vlm"]


def load_vlm(
    id_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | Literal["auto"] = "auto",
    *,
    require_manifest: bool = False,
    parts: Parts = "all",
    device_map: DeviceMap = "none",
    device_memory: Mapping[str, float] | None = None,
) -> Vlm:
    """Load a checkpoint of one of the FAMILIES.

    `id_or_path`: an embedded name ("room-tiny"), a folder in Hugging Face format, or a hub id ("owner/name").
    `dtype`: of weights and activations; "auto" is the checkpoint's own.
    `require_manifest`: refuse what has no SHA256SUMS; where there is one it always counts. `parts`: "vision"
    leaves out the language model, whose weights are not read: what is left encodes pictures and embeds
    prompts for a language engine elsewhere. `device_map`: the layers of the language model on several
    devices, of which `device` is the first; `device_memory`: bytes of weights by device (`vlm.placement`).
    Raises VlmError; its codes are listed there.
    """
    source, device = str(id_or_path), available_device(device, VlmError)
    devices = devices_of(device_map, device, device_memory)
    if devices is not None:
        device = devices.first
    folder, commit = READER.find(source, require_manifest)
    if is_adapter(folder):
        _require_one_device(
            source, devices, "a LoRA adapter is merged on one device", "merge it once, and name that folder"
        )
        base = load_vlm(_base(source, folder), device, dtype, require_manifest=require_manifest)
        whole = merge_adapter(base, source, folder, READER.fetch_weights(source, folder, commit, WEIGHTS))
        if parts == "all":
            return whole
        require_embeds(whole.id, whole.family)
        return without_language(whole)
    found = describe(source, folder)
    if parts == "vision":
        _require_one_device(source, devices, "a tower alone is on one device")
        require_embeds(source, found.family)
    if found.quantised is not None:
        _require_one_device(source, devices, f"weights quantised by {found.quantised} are on one device")
    revision = READER.fetch_weights(source, folder, commit)
    require_no_adapter(source, folder)
    model = load_model(found, device, _dtype(found, dtype), parts, devices)
    vlm = Vlm(
        id=source,
        revision=revision,
        model=model,
        tokenizer=found.tokenizer,
        image_processor=found.settings,
        chat_template=found.chat_template,
        shape=found.shape,
        eos_token_ids=_eos_token_ids(found),
        device=device,
        dtype=_computed_in(model),
        family=found.family if parts == "all" else found.family.for_servers(),
        default_views=found.default_views,
        parts=parts,
    )
    _try_prompt(vlm)
    if found.quantised is not None:
        _try_answer(vlm, f"its weights, quantised by {found.quantised},", "take others")
    if devices is not None:
        every = ", ".join(map(str, devices.room))
        _try_answer(vlm, f"its layers, divided among {every},", "leave device_map at none")
    return vlm


def _require_one_device(source: str, devices: Devices | None, why: str, remedy: str | None = None) -> None:
    if devices is not None:
        what = remedy or "leave device_map at none"
        raise VlmError("unsupported_device_map", f"{source} cannot be shared by devices: {why}; {what}")


def _base(source: str, folder: Path) -> str:
    """Return the model of an adapter, which is not an adapter again."""
    base = base_of(source, folder)
    if Path(base).is_dir() and is_adapter(Path(base)):
        raise READER.broken(source, f"it is an adapter of {base}, which is one too: merge that first")
    return base


def _dtype(found: Description, asked: torch.dtype | Literal["auto"]) -> torch.dtype:
    dtype = asked if isinstance(asked, torch.dtype) else own_dtype(found.config, found.folder)
    if found.quantised is None:
        return dtype
    try:
        return required_dtype(found.quantised, dtype, isinstance(asked, torch.dtype))
    except VlmError as error:
        raise VlmError(error.code, f"{found.source} cannot be loaded: {error}") from None


def _computed_in(model: PreTrainedModel) -> torch.dtype:
    """Return the dtype of activations, which the first quantised weight may not have."""
    said = model.config.dtype
    return said if isinstance(said, torch.dtype) else model.dtype


def _eos_token_ids(found: Description) -> frozenset[int]:
    from transformers import GenerationConfig

    path = found.folder / "generation_config.json"
    said: Any = READER.or_broken(
        found.source,
        lambda: (
            GenerationConfig.from_pretrained(found.folder)
            if path.is_file()
            else GenerationConfig.from_model_config(found.config)
        ),
    )
    eos: Any = found.tokenizer.eos_token_id if said.eos_token_id is None else said.eos_token_id
    if eos is None:
        raise READER.broken(
            found.source, "neither generation_config.json nor the tokenizer says how an answer ends"
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


def _try_answer(vlm: Vlm, what: str, remedy: str) -> None:
    """Answer once: whether `what` runs depends on packages, devices and dtype together."""
    height, width = TRIED_SIZE
    (layout,) = layouts(vlm, [TRIED_SIZE], "single")
    plan = plan_views(vlm, MergeSpec(), layout)
    try:
        visual = visual_of(vlm, [Image.new("RGB", (width, height))], layout, plan)
        ids = prompt_ids(vlm, "How many?", [spell(vlm, layout, plan)])
        if vlm.parts == "all":
            generate(vlm, ids, [visual], GenerationParams(max_new_tokens=1))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        where = f"on {vlm.device} in {short(vlm.dtype)}"
        message = f"{what} do not run {where} ({reason}): {remedy}"
        raise READER.broken(vlm.id, message) from error
