"""A model without its language model: it encodes and embeds the same, reads no weights of it, and says so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.vlm.families import CASES, write_family
from tests.vlm.family_pictures import pictures, read
from tosa import MergeSpec
from vlm import GenerationParams, Vlm, VlmError, generate, load_vlm
from vlm.families import family_class
from vlm.language import embed

SENT = [name for name in CASES if family_class(name).language_refusal is None]
PICTURES = [name for name in SENT if family_class(name).sends_pictures]
EMBEDS = [name for name in SENT if name not in PICTURES]
REFUSED = [name for name in CASES if name not in SENT]
SIZES = [(480, 640)]
LAYERS = re.compile(r"(language|text)_model\.(model\.)?layers\.|lm_head")


def without_layers(folder: Path) -> int:
    """Take the language model's layers out of a checkpoint; return how many weights that were."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    kept = {name: each for name, each in weights.items() if LAYERS.search(name) is None}
    save_file(kept, path, {"format": "pt"})
    return len(weights) - len(kept)


def test_every_family_says_whether_an_engine_elsewhere_can_read_for_it() -> None:
    assert set(EMBEDS) >= {"llava", "llava_next", "llava_onevision", "internvl", "idefics3", "smolvlm"}
    assert set(PICTURES) == {"qwen2_5_vl", "qwen3_vl"}
    assert set(REFUSED) >= {"paligemma", "gemma3", "qwen3_5"}


@pytest.mark.parametrize("name", SENT)
def test_it_sees_and_embeds_as_the_whole_model(member: Callable[..., Any], tmp_path: Path, name: str) -> None:
    whole: Vlm = member(name).vlm
    assert without_layers(write_family(tmp_path, name)) > 0
    alone = load_vlm(tmp_path, parts="vision")
    spec = MergeSpec() if name in PICTURES else MergeSpec("tome", keep_ratio=0.5)
    both = [read(vlm, pictures(SIZES), spec) for vlm in (whole, alone)]
    (ids, visuals), (own_ids, own_visuals) = both
    assert torch.equal(ids, own_ids)
    with torch.inference_mode():
        assert torch.equal(embed(whole, ids, visuals), embed(alone, own_ids, own_visuals))
        deep = [torch.cat([*visual.deepstack]) for visual in (*visuals, *own_visuals) if visual.deepstack]
        assert len(deep) == (2 if name == "qwen3_vl" else 0) and all(torch.equal(deep[0], it) for it in deep)
    assert (whole.eos_token_ids, whole.max_tokens) == (alone.eos_token_ids, alone.max_tokens)
    assert (whole.shape, whole.dtype, len(whole.tokenizer)) == (
        alone.shape,
        alone.dtype,
        len(alone.tokenizer),
    )


@pytest.mark.parametrize("name", SENT)
def test_it_holds_nothing_of_the_language_model_but_its_table(member: Callable[..., Any], name: str) -> None:
    whole: Vlm = member(name).vlm
    alone = load_vlm(member(name).folder, parts="vision")
    embedding: Any = alone.model.get_input_embeddings()
    table = embedding.weight.numel()
    text = sum(each.numel() for each in alone.family.decoder(alone.core).parameters())
    assert text - table <= alone.text_config.hidden_size  # the norm behind the last layer
    seeing = sum(each.numel() for each in whole.core.parameters()) - sum(
        each.numel() for each in whole.family.decoder(whole.core).parameters()
    )
    assert sum(each.numel() for each in alone.model.parameters()) == text + seeing


def test_it_answers_nothing(member: Callable[..., Any]) -> None:
    alone = load_vlm(member("llava").folder, parts="vision")
    ids, visuals = read(alone, pictures(SIZES))
    with pytest.raises(VlmError, match="without its language model") as error:
        generate(alone, ids, visuals, GenerationParams(max_new_tokens=1))
    assert error.value.code == "no_language_model"


@pytest.mark.parametrize("name", REFUSED)
def test_what_prompt_embeddings_do_not_say_is_refused_before_weights(tmp_path: Path, name: str) -> None:
    folder = write_family(tmp_path, name)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(VlmError, match="let it answer in this process") as error:
        load_vlm(folder, parts="vision")
    assert error.value.code == "unsupported_language"


def test_a_missing_tower_is_still_seen(tmp_path: Path) -> None:
    path = write_family(tmp_path, "llava") / "model.safetensors"
    weights = load_file(path)
    save_file(
        {name: each for name, each in weights.items() if "projector" not in name}, path, {"format": "pt"}
    )
    with pytest.raises(VlmError, match="weights are missing") as error:
        load_vlm(tmp_path, parts="vision")
    assert error.value.code == "broken_checkpoint"


@pytest.mark.parametrize("said", [7, [7, 8], None])
def test_both_parts_end_answers_alike(tmp_path: Path, said: int | list[int] | None) -> None:
    path = write_family(tmp_path, "llava") / "generation_config.json"
    if said is None:
        path.unlink()
    else:
        path.write_text(json.dumps({"eos_token_id": said}))
    whole, alone = load_vlm(tmp_path), load_vlm(tmp_path, parts="vision")
    expected = {2} if said is None else set(said if isinstance(said, list) else [said])
    assert whole.eos_token_ids == alone.eos_token_ids == expected


def test_the_embedded_model_sees_alone() -> None:
    alone = load_vlm("room-tiny", parts="vision")
    assert alone.parts == "vision" and alone.revision == load_vlm("room-tiny").revision
