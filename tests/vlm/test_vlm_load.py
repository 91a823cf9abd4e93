"""Loading: what is accepted, and one clear error for everything that is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import vlm.load
from tests.needs import needs
from tosa import MergeSpec
from vlm import VlmError, generate, load_vlm

Checkpoint = Callable[..., Path]


def code_of(source: str | Path, **options: Any) -> str:
    with pytest.raises(VlmError) as error:
        load_vlm(source, **options)
    message = str(error.value)
    assert str(source) in message or "cuda" in message
    assert "\n" not in message
    return error.value.code


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_newline(folder: Path, change: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("image_newline"))
    changed = change(weights.pop(name))
    save_file(weights if changed is None else weights | {name: changed}, path, metadata={"format": "pt"})


def test_a_folder_is_loaded_with_everything_a_request_needs(checkpoint: Checkpoint):
    vlm = load_vlm(checkpoint())
    assert (vlm.shape.num_layers, vlm.shape.grid) == (3, (4, 4))
    assert vlm.image_processor.mean == (0.5, 0.4, 0.3)
    assert (vlm.image_processor.size_px, vlm.image_processor.resample) == (56, 3)
    assert vlm.eos_token_ids == {5}
    assert not vlm.model.training


def test_the_revision_follows_the_weights(checkpoint: Checkpoint):
    folder = checkpoint()
    first = load_vlm(folder).revision
    assert len(first) == 16
    assert load_vlm(folder).revision == first
    edit_newline(folder, lambda newline: newline + 1)
    assert load_vlm(folder).revision != first


def test_weights_may_come_in_shards(checkpoint: Checkpoint):
    folder = checkpoint()
    vlm = load_vlm(folder)
    vlm.model.save_pretrained(folder, max_shard_size="40KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert len(list(folder.glob("*.safetensors"))) > 1
    again = load_vlm(folder)
    assert torch.equal(again.model.model.image_newline, vlm.model.model.image_newline)
    assert again.revision != vlm.revision


def test_the_weights_take_the_type_asked_for(
    checkpoint: Checkpoint, read: Callable[..., tuple[Tensor, Tensor]], sample_images: list[Image.Image]
):
    vlm = load_vlm(checkpoint(), dtype=torch.bfloat16)
    assert {weight.dtype for weight in vlm.model.parameters()} == {torch.bfloat16}
    answer = generate(vlm, *read(vlm, sample_images, "how many ?", MergeSpec("tosa", keep_ratio=0.5)))
    assert len(answer.token_ids) > 1


def test_an_older_template_file_is_used(checkpoint: Checkpoint):
    folder = checkpoint()
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "old " + template}))
    assert load_vlm(folder).chat_template == "old " + template


@pytest.mark.parametrize("source", ["no-such-model", "/no/such/folder", "./here", "a/b/c", ""])
def test_what_is_nowhere_is_not_found(source: str):
    assert code_of(source) == "model_not_found"


def test_an_embedded_name_without_its_files_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(vlm.load.EMBEDDED, "room-tiny", tmp_path)
    assert code_of("room-tiny") == "broken_checkpoint"


def test_a_hub_id_that_cannot_be_downloaded_is_not_found(monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("a long text with addresses in it")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    assert code_of("someone/some-model") == "model_not_found"


def test_a_hub_id_is_downloaded_settings_first_and_never_pickles(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
):
    folder = checkpoint()
    commit = folder.rename(folder.with_name("0123abcd"))
    calls: list[tuple[str, str | None, object]] = []

    def download(repo: str, revision: str | None, allow_patterns: object) -> str:
        calls.append((repo, revision, allow_patterns))
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    loaded = load_vlm("someone/some-model")
    assert (loaded.id, loaded.revision) == ("someone/some-model", "0123abcd")
    settings = ["*.json", "*.jinja", "*.txt", "SHA256SUMS"]
    assert calls == [
        ("someone/some-model", None, settings),
        ("someone/some-model", "0123abcd", "*.safetensors"),
    ]


def test_another_architecture_is_refused(checkpoint: Checkpoint):
    folder = checkpoint()
    edit(folder / "config.json", model_type="llama")
    assert code_of(folder) == "unsupported_model"


def test_another_tower_is_refused(checkpoint: Checkpoint):
    folder = checkpoint()
    edit(folder / "config.json", vision_config={"model_type": "clip_vision_model"})
    assert code_of(folder) == "unsupported_tower"


def test_dropping_visual_tokens_is_refused(checkpoint: Checkpoint):
    folder = checkpoint()
    edit(folder / "config.json", vision_feature_select_strategy="default")
    assert code_of(folder) == "unsupported_model"


@pytest.mark.parametrize("name", ["pytorch_model.bin", None])
def test_pickle_only_weights_are_refused(checkpoint: Checkpoint, name: str | None):
    folder = checkpoint()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if name:
        torch.save(weights, folder / name)
    assert code_of(folder) == "no_safetensors"


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"]
)
@pytest.mark.parametrize("damage", ["{", "[]", ""], ids=["cut", "list", "empty"])
def test_a_damaged_file_is_a_broken_checkpoint(checkpoint: Checkpoint, name: str, damage: str):
    folder = checkpoint()
    (folder / name).write_text(damage)
    assert code_of(folder) == "broken_checkpoint"


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json"])
def test_a_missing_file_is_a_broken_checkpoint(checkpoint: Checkpoint, name: str):
    folder = checkpoint()
    (folder / name).unlink()
    assert code_of(folder) == "broken_checkpoint"


@pytest.mark.parametrize(
    "changes",
    [
        {"image_mean": "grey"},
        {"image_std": [1, 2]},
        {"resample": None},
        {"size": {"height": 28, "width": 28}},
        {"size": 56},
    ],
    ids=str,
)
def test_impossible_image_settings_are_a_broken_checkpoint(checkpoint: Checkpoint, changes: dict[str, Any]):
    folder = checkpoint()
    edit(folder / "preprocessor_config.json", **changes)
    assert code_of(folder) == "broken_checkpoint"


def test_missing_weights_are_a_broken_checkpoint(checkpoint: Checkpoint):
    folder = checkpoint()
    edit_newline(folder, lambda _: None)
    assert code_of(folder) == "broken_checkpoint"


def test_weights_of_another_size_are_a_broken_checkpoint(checkpoint: Checkpoint):
    folder = checkpoint()
    edit_newline(folder, lambda _: None)
    assert code_of(folder) == "broken_checkpoint"


def test_remote_code_is_never_run(checkpoint: Checkpoint):
    folder = checkpoint()
    trap = folder / "trap.py"
    trap.write_text("raise SystemExit('remote code ran')")
    edit(folder / "config.json", auto_map={"AutoConfig": "trap.Config", "AutoModel": "trap.Model"})
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "trap.Tokenizer"]})
    assert code_of(folder) == "broken_checkpoint"


@needs("no gpu")
def test_a_device_that_is_not_there_is_refused(checkpoint: Checkpoint):
    assert code_of(checkpoint(), device="cuda") == "device_unavailable"


@pytest.mark.parametrize("device", ["auto", "balanced", "cuda:0,cuda:1", "meta"])
def test_a_device_that_is_none_or_several_is_refused(checkpoint: Checkpoint, device: str):
    with pytest.raises(VlmError) as error:
        load_vlm(checkpoint(), device=device)
    assert (error.value.code, device in str(error.value)) == ("device_unavailable", True)
