"""`tosa-vqa language-model`: the language model alone gives the same logits, and comes with known answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from service.cli.main import app
from tests.vlm.families import write_family
from tests.vlm.family_pictures import pictures, read
from tests.vlm.test_vision_alone import EMBEDS, REFUSED
from vlm import MAX_TOP_LOGPROBS, GenerationParams, TokenLogprob, Vlm, VlmError, load_vlm
from vlm.language import embed, new_cache, next_logits
from vlm.language_checkpoint import write_language_model
from vlm.probe import PROMPTS, Probe, largest_difference, probe, probe_prompts, read_probe, tolerance

hf: Any = __import__("transformers")


@pytest.mark.parametrize("name", EMBEDS)
@torch.inference_mode()
def test_it_reads_the_embeddings_of_every_family_as_the_whole_model(
    member: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    it = member(name)
    written = write_language_model(it.folder, tmp_path / "out")
    alone = hf.AutoModelForCausalLM.from_pretrained(written.folder).eval()
    assert type(alone).__name__ == written.model_class
    ids, visuals = read(it.vlm, pictures([(480, 640)]))
    embeds = embed(it.vlm, ids, visuals)
    theirs = alone(inputs_embeds=embeds).logits[:, -1]
    torch.testing.assert_close(theirs, next_logits(it.vlm, embeds, new_cache(it.vlm)))
    tokenizer = hf.AutoTokenizer.from_pretrained(written.folder)
    # transformers adds <|endoftext|> to any tokenizer of a Qwen2
    assert it.vlm.tokenizer.get_vocab().items() <= tokenizer.get_vocab().items()
    ends = json.loads((written.folder / "generation_config.json").read_text())["eos_token_id"]
    assert set(ends if isinstance(ends, list) else [ends]) == it.vlm.eos_token_ids


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_its_own_is_written(tmp_path: Path, tied: bool) -> None:
    folder = write_family(tmp_path / "model", "llava")
    raw = json.loads((folder / "config.json").read_text())
    model = hf.LlavaForConditionalGeneration(hf.LlavaConfig(**raw | {"tie_word_embeddings": tied}))
    model.save_pretrained(folder)
    written = write_language_model(folder, tmp_path / "out")
    alone = hf.AutoModelForCausalLM.from_pretrained(written.folder)
    same = alone.lm_head.weight.data_ptr() == alone.get_input_embeddings().weight.data_ptr()
    assert same is tied
    assert torch.equal(alone.lm_head.weight, load_vlm(folder).model.lm_head.weight)


def test_how_a_checkpoint_samples_is_not_written(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "model", "llava")
    path = folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": 2, "repetition_penalty": 1.05, "temperature": 0.1}))
    write_language_model(folder, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert not written.keys() & {"repetition_penalty", "temperature"}


def test_what_cannot_be_served_elsewhere_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(VlmError, match="both directions"):
        write_language_model(write_family(tmp_path / "model", "gemma3"), tmp_path / "out")
    assert "qwen3_5" in REFUSED


@pytest.mark.parametrize(("name", "images"), [("qwen2_5_vl", 0), ("qwen3_vl", 1)])
def test_what_is_loaded_as_it_is_gets_known_answers_alone(
    member: Callable[..., Any], tmp_path: Path, name: str, images: int
) -> None:
    """Without its tower, vLLM forgets the features of earlier layers (Qwen3-VL)."""
    it = member(name)
    result = CliRunner().invoke(app, ["language-model", str(it.folder), "--out", str(tmp_path / "out")])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tosa_probe.json"]
    assert read_probe(tmp_path / "out") == probe(it.vlm)
    assert f"--model {it.folder}" in result.stdout and "--enable-prompt-embeds" not in result.stdout
    assert "--enable-scale-out --enable-mm-embeds" in result.stdout
    assert f"--max-logprobs {MAX_TOP_LOGPROBS + 1}" in result.stdout
    assert f'"image": {images}, "video": 0' in result.stdout


def test_an_adapter_is_not_loaded_as_it_is(
    member: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm.language_checkpoint.is_adapter", lambda _: True)
    with pytest.raises(VlmError, match="adapter") as error:
        write_language_model(member("qwen3_vl").folder, tmp_path / "out")
    assert error.value.code == "unsupported_language"


def test_quantised_weights_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_vlm(write_family(tmp_path / "model", "llava"))
    loaded.model.config.quantization_config = {"quant_method": "torchao"}
    monkeypatch.setattr("vlm.language_checkpoint.load_vlm", lambda *_, **__: loaded)
    with pytest.raises(VlmError, match="quantised") as error:
        write_language_model(tmp_path / "model", tmp_path / "out")
    assert error.value.code == "unsupported_quantisation"


def test_files_that_are_there_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(FileExistsError):
        write_language_model("room-tiny", tmp_path)
    assert (tmp_path / "config.json").read_text() == "mine"


def test_the_command_says_how_to_serve_it(tmp_path: Path) -> None:
    run = CliRunner().invoke
    result = run(app, ["language-model", "room-tiny", "--out", str(tmp_path / "a b")])
    assert result.exit_code == 0, result.output
    assert "Qwen2ForCausalLM" in result.stdout and "--enable-prompt-embeds" in result.stdout
    assert f"--model '{tmp_path / 'a b'}'" in result.stdout
    assert "--structured-outputs-config.backend guidance" in result.stdout
    assert "tosa-vqa serve --model room-tiny --language vllm --language-url" in result.stdout
    again = run(app, ["language-model", "room-tiny", "--out", str(tmp_path / "a b")])
    assert again.exit_code == 2 and "not empty" in again.stderr
    as_json = json.loads(
        run(app, ["language-model", "room-tiny", "--out", str(tmp_path / "c"), "--json"]).stdout
    )
    assert (as_json["model_class"], as_json["max_tokens"]) == ("Qwen2ForCausalLM", 4096)


def test_known_answers_come_with_it(member: Callable[..., Any], tmp_path: Path) -> None:
    it = member("llava")
    write_language_model(it.folder, tmp_path / "out")
    known = read_probe(tmp_path / "out")
    assert known == probe(it.vlm) and known is not None
    assert (len(known.answers), known.revision) == (PROMPTS, it.vlm.revision)


def test_the_embedded_model_ships_known_answers() -> None:
    vlm = load_vlm("room-tiny")
    assert vlm.family.folder is not None
    known = read_probe(vlm.family.folder)
    assert known is not None and known.revision == vlm.revision
    assert largest_difference(known.answers, probe(vlm).answers) < tolerance(vlm.dtype) / 10


def test_prompts_are_of_text_alone(member: Callable[..., Any]) -> None:
    for name in EMBEDS:
        vlm: Vlm = member(name).vlm
        prompts = torch.cat(probe_prompts(vlm))
        assert not vlm.family.is_visual(prompts).any()
        assert not set(prompts.flatten().tolist()) & set(vlm.tokenizer.all_special_ids)
        assert int(prompts.max()) < len(vlm.tokenizer)


def test_other_weights_and_another_table_are_seen(vlm: Vlm, load: Callable[..., Vlm]) -> None:
    expected = probe(vlm).answers
    assert largest_difference(expected, probe(load(seed=1)).answers) > tolerance(torch.bfloat16)
    coarse = replace(vlm, model=vlm.model)
    assert largest_difference(expected, probe(coarse).answers) == 0.0


def test_answers_are_compared_by_what_the_other_holds_likely() -> None:
    ours = TokenLogprob(1, -0.5, ((1, -0.5), (2, -0.6)))
    near = TokenLogprob(2, -0.50, ((2, -0.50), (1, -0.505)))
    assert largest_difference([ours], [near]) == pytest.approx(0.005)
    assert largest_difference([ours], [TokenLogprob(3, -0.1, ((3, -0.1),))]) == float("inf")
    assert largest_difference([ours], []) == float("inf")


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '{"revision": "a", "answers": [{"token_id": "x"}]}'])
def test_known_answers_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "tosa_probe.json").write_text(text)
    with pytest.raises(VlmError, match="tosa-vqa language-model writes") as error:
        read_probe(tmp_path)
    assert error.value.code == "broken_checkpoint"
    assert read_probe(tmp_path / "elsewhere") is None


def test_a_probe_needs_the_language_model(member: Callable[..., Any]) -> None:
    with pytest.raises(VlmError, match="without its language model"):
        probe(load_vlm(member("llava").folder, parts="vision"))
    assert Probe("a", ()).answers == () and GenerationParams(top_logprobs=5).top_logprobs == 5
