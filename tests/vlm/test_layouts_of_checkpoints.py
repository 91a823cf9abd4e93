"""Checkpoints as people have them: each loads as transformers does, or is refused with what to do."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

import vlm.load
import vlm.lora
import vlm.quantised
from tests.vlm.families import CASES, write_family
from tests.vlm.family_pictures import picture, processed, read
from vlm import VlmError, load_vlm
from vlm.check import check
from vlm.families import FAMILIES

SIZE = (96, 128)
WEIGHTS = "model.safetensors"
Edit = Callable[[Path], object]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a checkpoint of a family once."""
    return cache(lambda name: write_family(tmp_path_factory.mktemp(name), name))


@pytest.fixture
def folder(original: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copy the checkpoint of a family, for a test that changes it."""

    def copy(name: str) -> Path:
        return shutil.copytree(original(name), tmp_path / name)

    return copy


def said(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def say(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    raw = (said(path) if path.is_file() else {}) | changes
    path.write_text(json.dumps({name: value for name, value in raw.items() if value is not None}))


def take(path: Path) -> str:
    """Remove a file and return its text."""
    text = path.read_text(encoding="utf-8")
    path.unlink()
    return text


# What is loaded.


def as_transformers_4(at: Path) -> None:
    """Put the parts of the processor in files of their own."""
    raw = said(at / "processor_config.json")
    for part, name in (("image_processor", "preprocessor"), ("video_processor", "video_preprocessor")):
        if part in raw:
            (at / f"{name}_config.json").write_text(json.dumps(raw.pop(part)))
    (at / "processor_config.json").write_text(json.dumps(raw))


def without_a_processor_config(at: Path) -> None:
    as_transformers_4(at)
    (at / "processor_config.json").unlink()


def without_a_video_config(at: Path) -> None:
    without_a_processor_config(at)
    (at / "video_preprocessor_config.json").unlink()


def template_in(name: str, named: bool = False) -> Edit:
    """Move the template to the key of another file; named: as one of several."""

    def move(at: Path) -> None:
        text: Any = take(at / "chat_template.jinja")
        several = [{"name": "tool_use", "template": "none"}, {"name": "default", "template": text}]
        say(at / name, chat_template=several if named else text)

    return move


def additional_templates(at: Path) -> None:
    (at / "additional_chat_templates").mkdir()
    (at / "additional_chat_templates" / "tool_use.jinja").write_text("no images here")


def two_templates(at: Path) -> None:
    say(at / "chat_template.json", chat_template=(at / "chat_template.jinja").read_text())
    (at / "chat_template.jinja").write_text("{{ messages[0]['role'] }}")


def shards(at: Path) -> None:
    weights = load_file(at / WEIGHTS)
    (at / WEIGHTS).unlink()
    names = sorted(weights)
    parts = names[: len(names) // 2], names[len(names) // 2 :]
    index: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, at / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (at / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def saved_as(dtype: torch.dtype) -> Callable[[Path], None]:
    def save(at: Path) -> None:
        weights = {name: weight.to(dtype) for name, weight in load_file(at / WEIGHTS).items()}
        save_file(weights, at / WEIGHTS, metadata={"format": "pt"})

    return save


def with_dtype(where: str, dtype: str = "bfloat16") -> Edit:
    """Say the dtype in one place: "dtype" or "torch_dtype" of the whole, "text_config", or "weights"."""

    def change(at: Path) -> None:
        saved_as(getattr(torch, dtype))(at)
        raw = said(at / "config.json")
        for each in (raw, raw["text_config"], raw["vision_config"]):
            each.pop("dtype", None)
        if where == "text_config":
            raw["text_config"]["dtype"] = dtype
        elif where != "weights":
            raw[where] = dtype
        (at / "config.json").write_text(json.dumps(raw))

    return change


def renamed(*names: tuple[str, str]) -> Edit:
    """Give weights the names that transformers 4 gave them."""

    def rename(at: Path) -> None:
        weights: dict[str, Tensor] = {}
        for name, weight in load_file(at / WEIGHTS).items():
            found = next(((new, old) for new, old in names if name.startswith(new)), ("", ""))
            weights[found[1] + name.removeprefix(found[0])] = weight
        save_file(weights, at / WEIGHTS, metadata={"format": "pt"})

    return rename


def without_generation_config(at: Path) -> None:
    (at / "generation_config.json").unlink()


def with_files_beside(at: Path) -> None:
    """What repositories hold that is not read: pickles beside safetensors, a script, a card."""
    torch.save({}, at / "pytorch_model.bin")
    (at / "training_args.bin").write_bytes(b"no pickle")
    (at / "README.md").write_text("---\nlicense: mit\n---\n")
    (at / "convert.py").write_text("raise SystemExit")


def without_colours(at: Path) -> None:
    raw = said(at / "processor_config.json")
    for name in ("image_mean", "image_std", "resample"):
        del raw["image_processor"][name]
    (at / "processor_config.json").write_text(json.dumps(raw))


LLAVA_4 = (
    ("model.language_model", "language_model.model"),
    ("model.vision_tower", "vision_tower"),
    ("model.multi_modal_projector", "multi_modal_projector"),
    ("lm_head", "language_model.lm_head"),
)
QWEN_4 = (("model.language_model", "model"), ("model.visual", "visual"))
LOADED: dict[str, tuple[str, Edit]] = {
    "as transformers 5 saves": ("llava", lambda at: None),
    "as transformers 4 saves": ("llava_onevision", as_transformers_4),
    "no processor_config.json": ("paligemma", without_a_processor_config),
    "no processor_config.json, Qwen": ("qwen2_5_vl", without_a_processor_config),
    "no config for videos": ("qwen2_5_vl", without_a_video_config),
    "template in chat_template.json": ("llava", template_in("chat_template.json")),
    "template in processor_config.json": ("qwen3_vl", template_in("processor_config.json")),
    "template in tokenizer_config.json": ("internvl", template_in("tokenizer_config.json")),
    "a list of templates": ("llava_next", template_in("tokenizer_config.json", named=True)),
    "additional templates": ("smolvlm", additional_templates),
    "two templates": ("llava", two_templates),
    "a family without a template": ("paligemma", lambda at: None),
    "shards": ("llava", shards),
    "bfloat16": ("llava", with_dtype("dtype")),
    "float16": ("llava", with_dtype("dtype", "float16")),
    "torch_dtype": ("llava_onevision", with_dtype("torch_dtype")),
    "dtype of the language model": ("gemma3", with_dtype("text_config")),
    "dtype of the weights": ("qwen3_vl", with_dtype("weights")),
    "weights named as in transformers 4, LLaVA": ("llava", renamed(*LLAVA_4)),
    "weights named as in transformers 4, Qwen": ("qwen2_5_vl", renamed(*QWEN_4)),
    "no generation_config.json": ("idefics3", without_generation_config),
    "other files beside": ("llava", with_files_beside),
    "an image processor with defaults": ("llava_onevision", without_colours),
}


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # transformers leaves files open
@pytest.mark.parametrize("layout", LOADED)
def test_it_loads_as_transformers_does(folder: Callable[[str], Path], layout: str) -> None:
    name, edit = LOADED[layout]
    at = folder(name)
    edit(at)
    ours = load_vlm(at)
    theirs = getattr(transformers, CASES[name].model_class).from_pretrained(at, dtype="auto")
    if layout != "dtype of the language model":  # which transformers does not look at without weights
        assert ours.dtype == theirs.dtype
    weights = theirs.state_dict()
    assert ours.model.state_dict().keys() == weights.keys()
    for key, weight in ours.model.state_dict().items():
        assert torch.equal(weight.float(), weights[key].float()), key
    image = picture(SIZE)
    tokenizer = transformers.AutoTokenizer.from_pretrained(at)
    processor = transformers.AutoProcessor.from_pretrained(at)
    if processor.chat_template is None:  # transformers leaves that of the tokenizer to the caller
        processor.chat_template = tokenizer.get_chat_template() if tokenizer.chat_template else None
    expected = processed(name, processor, [image])["input_ids"]
    ids, visuals = read(ours, [image])[:2]
    assert ids.tolist() == expected.tolist()
    assert all(visual.features.dtype == ours.dtype for visual in visuals)


# What is refused.


def only_gguf(at: Path) -> None:
    for path in at.iterdir():
        path.unlink()
    (at / "model-Q4_K_M.gguf").write_bytes(b"GGUF")


def gguf_beside_configs(at: Path) -> None:
    (at / WEIGHTS).rename(at / "model.gguf")


def only_bin(at: Path) -> None:
    torch.save(load_file(at / WEIGHTS), at / "pytorch_model.bin")
    (at / WEIGHTS).unlink()


def pointer(at: Path) -> None:
    (at / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def lost_shard(at: Path) -> None:
    shards(at)
    (at / "model-00002-of-00002.safetensors").unlink()


def variant(at: Path) -> None:
    (at / WEIGHTS).rename(at / "model.fp16.safetensors")


def moved_to(inside: str) -> Edit:
    def move(at: Path) -> None:
        new = at.with_name("moved") / inside
        shutil.copytree(at, new)
        shutil.rmtree(at)
        at.with_name("moved").rename(at)

    return move


def config(**changes: Any) -> Edit:
    return lambda at: say(at / "config.json", **changes)


def other_config(**raw: Any) -> Edit:
    return lambda at: (at / "config.json").write_text(json.dumps(raw))


def quantised_by(**settings: Any) -> Edit:
    return config(quantization_config=settings)


def adapter(at: Path) -> None:
    """Leave what a training of an adapter saves."""
    for path in (at / WEIGHTS, at / "config.json"):
        path.unlink()
    save_file({"base_model.model.lm_head.lora_A.weight": torch.zeros(2, 2)}, at / "adapter_model.safetensors")
    adapted = {"peft_type": "LORA", "base_model_name_or_path": "someone/base-vl", "r": 2}
    (at / "adapter_config.json").write_text(json.dumps(adapted))


def adapter_of_another_kind(at: Path) -> None:
    adapter(at)
    say(at / "adapter_config.json", peft_type="PROMPT_TUNING")


def adapter_of_nothing(at: Path) -> None:
    adapter(at)
    say(at / "adapter_config.json", base_model_name_or_path=None)


def merged_and_adapter(at: Path) -> None:
    (at / "adapter_config.json").write_text("{}")


def no_template(at: Path) -> None:
    (at / "chat_template.jinja").unlink()


def no_default_template(at: Path) -> None:
    (at / "additional_chat_templates").mkdir()
    (at / "chat_template.jinja").rename(at / "additional_chat_templates" / "rag.jinja")


def broken_template(at: Path) -> None:
    (at / "chat_template.json").write_text("{")


def no_processor(at: Path) -> None:
    (at / "processor_config.json").unlink()


def only_sentencepiece(at: Path) -> None:
    (at / "tokenizer.json").unlink()
    (at / "tokenizer.model").write_bytes(b"\n")


TYPES = ", ".join(FAMILIES)
REFUSED: dict[str, tuple[str, Edit, str, tuple[str, ...]]] = {
    "GGUF": ("llava", only_gguf, "no_safetensors", ("model-Q4_K_M.gguf", "llama.cpp", "made from")),
    "GGUF beside configs": ("llava", gguf_beside_configs, "no_safetensors", ("model.gguf", "made from")),
    "pickles": ("llava", only_bin, "no_safetensors", ("pytorch_model.bin", "convert", "save_pretrained")),
    "a pointer of Git LFS": ("llava", pointer, "broken_checkpoint", (WEIGHTS, "git lfs pull")),
    "a shard is lost": ("llava", lost_shard, "broken_checkpoint", ("model-00002-of-00002.safetensors",)),
    "a variant": ("llava", variant, "broken_checkpoint", ("model.fp16.safetensors", "rename")),
    "in a folder inside": ("llava", moved_to("checkpoint-9"), "broken_checkpoint", ("checkpoint-9", "name")),
    "the hub's cache": ("llava", moved_to("snapshots/ab"), "broken_checkpoint", ("snapshots/ab", "name")),
    "remote code": (
        "llava",
        config(auto_map={"AutoModel": "modeling.Model"}),
        "broken_checkpoint",
        ("config.json", "auto_map", "never run", "-hf"),
    ),
    "remote code of the tokenizer": (
        "llava",
        lambda at: say(at / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "own.Tokenizer"]}),
        "broken_checkpoint",
        ("tokenizer_config.json", "auto_map"),
    ),
    "another kind of quantisation": (
        "llava",
        quantised_by(quant_method="squeezed"),
        "unsupported_quantisation",
        ("squeezed", "torchao", "compressed-tensors", "without quantisation"),
    ),
    "quantised by GGUF": ("llava", quantised_by(quant_method="gguf"), "unsupported_quantisation", ("gguf",)),
    "torchao": ("llava", quantised_by(quant_method="torchao"), "missing_package", ("torchao", "[quantised]")),
    "bitsandbytes": (
        "llava",
        quantised_by(quant_method="bitsandbytes", load_in_4bit=True),
        "missing_package",
        ("bitsandbytes, accelerate", "[quantised]"),
    ),
    "bitsandbytes, unnamed": (
        "qwen3_vl",
        quantised_by(load_in_8bit=True),
        "missing_package",
        ("bitsandbytes", "[quantised]"),
    ),
    "AWQ": (
        "qwen2_5_vl",
        quantised_by(quant_method="awq"),
        "missing_package",
        ("pip install gptqmodel accelerate",),
    ),
    "GPTQ": (
        "llava",
        quantised_by(quant_method="gptq"),
        "missing_package",
        ("pip install gptqmodel optimum",),
    ),
    "fp8": ("llava", quantised_by(quant_method="fp8"), "missing_package", ("accelerate", "[quantised]")),
    "compressed-tensors": (
        "llava",
        quantised_by(quant_method="compressed-tensors"),
        "missing_package",
        ("compressed-tensors", "[quantised]"),
    ),
    "an adapter": (
        "llava",
        adapter,
        "missing_package",
        ("LoRA adapter of someone/base-vl", "tosa-vqa[lora]", "merge_and_unload"),
    ),
    "an adapter of another kind": ("llava", adapter_of_another_kind, "unsupported_model", ("PROMPT_TUNING",)),
    "an adapter of nothing": (
        "llava",
        adapter_of_nothing,
        "broken_checkpoint",
        ("base_model_name_or_path",),
    ),
    "a model and an adapter": (
        "llava",
        merged_and_adapter,
        "broken_checkpoint",
        ("delete", "adapter_config"),
    ),
    "no template": ("llava", no_template, "no_chat_template", ("chat_template.jinja", "copy")),
    "no default template": ("llava", no_default_template, "no_chat_template", ("rag", "copy one")),
    "a broken template": ("llava", broken_template, "broken_checkpoint", ("chat template",)),
    "a language model": (
        "llava",
        other_config(model_type="qwen2", vocab_size=9),
        "unsupported_model",
        ("qwen2, a language model without a vision tower", TYPES),
    ),
    "a tower": (
        "llava",
        other_config(model_type="siglip_vision_model", image_size=384, patch_size=14),
        "unsupported_model",
        ("a vision tower without a language model", "tosa_encode", TYPES),
    ),
    "another model": (
        "llava",
        other_config(model_type="mllama", vision_config={}),
        "unsupported_model",
        ("mllama", TYPES),
    ),
    "a model of other code": (
        "llava",
        other_config(model_type="internvl_chat", vision_config={}),
        "unsupported_model",
        ("internvl_chat", "InternVL3-1B-hf"),
    ),
    "no model type": ("llava", other_config(architectures=["X"]), "unsupported_model", (TYPES,)),
    "a list of model types": ("llava", other_config(model_type=["llava"]), "unsupported_model", (TYPES,)),
    "no image processor": (
        "qwen3_vl",
        no_processor,
        "broken_checkpoint",
        ("preprocessor_config.json or processor_config.json", "copy"),
    ),
    "another tokenizer": (
        "qwen3_vl",
        config(image_token_id=10**6),
        "broken_checkpoint",
        ("image token 1000000", "tokenizer", "one model"),
    ),
    "a layer that is not there": (
        "llava",
        config(vision_feature_layer=-9),
        "unsupported_model",
        ("feature layer -9", "3 layers"),
    ),
    "sentencepiece alone": (
        "llava",
        only_sentencepiece,
        "broken_checkpoint",
        ("tokenizer.json", "AutoTokenizer"),
    ),
}


@pytest.mark.parametrize("layout", REFUSED)
def test_it_is_refused_with_what_to_do(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    for module in (vlm.quantised, vlm.lora):  # also where a package is installed
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    name, edit, code, words = REFUSED[layout]
    at = folder(name)
    edit(at)
    sentence = refusal(at, code)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(("file", "word"), [("model.gguf", "llama.cpp"), (WEIGHTS, "name the folder")])
def test_a_file_is_not_a_folder(folder: Callable[[str], Path], file: str, word: str) -> None:
    at = folder("llava") / file
    at.touch()
    assert word in refusal(at, "no_safetensors" if file.endswith("gguf") else "model_not_found")


def test_an_adapter_of_an_adapter_is_refused(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vlm.lora, "find_spec", lambda name: name)
    at = folder("llava")
    adapter(at)
    say(at / "adapter_config.json", base_model_name_or_path=str(at))
    assert "merge that first" in refusal(at, "broken_checkpoint")


@pytest.mark.parametrize("fits", [True, False])
def test_an_adapter_is_merged_into_the_model_it_names(
    folder: Callable[[str], Path],
    original: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    fits: bool,
) -> None:
    """With what we use of peft, which the tests do without; the real one was tried by hand."""

    class PeftModel:
        @staticmethod
        def from_pretrained(model: torch.nn.Module, at: Path) -> Any:
            if not fits:
                warnings.warn("Found missing adapter keys while loading", stacklevel=1)
            with torch.no_grad():
                model.get_parameter("lm_head.weight").add_(1)
            return SimpleNamespace(merge_and_unload=lambda: model)

    monkeypatch.setitem(sys.modules, "peft", SimpleNamespace(PeftModel=PeftModel))
    monkeypatch.setattr(vlm.lora, "find_spec", lambda name: name)
    base, at = original("llava"), folder("llava")
    adapter(at)
    say(at / "adapter_config.json", base_model_name_or_path=str(base))
    if not fits:
        assert f"do not fit {base}" in refusal(at, "broken_checkpoint")
        return
    merged, plain = load_vlm(at), load_vlm(base)
    assert (merged.id, merged.revision == plain.revision) == (str(at), False)
    assert torch.equal(merged.model.lm_head.weight, plain.model.lm_head.weight + 1)
    assert check(at).adapter_of == str(base)


def test_weights_that_compute_in_one_dtype_refuse_another() -> None:
    assert vlm.quantised.required_dtype("bitsandbytes", torch.float32, False) == torch.bfloat16
    assert vlm.quantised.required_dtype("torchao", torch.float32, True) == torch.float32
    with pytest.raises(VlmError) as error:
        vlm.quantised.required_dtype("bitsandbytes", torch.float32, True)
    assert error.value.code == "unsupported_dtype"
    assert "bfloat16, not float32" in str(error.value)


def test_quantised_weights_answer_once_at_loading(
    original: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_vlm(original("llava"))
    vlm.load._try_answer(loaded, "its weights, quantised by torchao,", "take others")

    def fail(*_: object) -> None:
        raise RuntimeError("expected Float\nbut found BFloat16")

    monkeypatch.setattr(vlm.load, "generate", fail)
    with pytest.raises(VlmError) as error:
        vlm.load._try_answer(loaded, "its weights, quantised by torchao,", "take others")
    assert error.value.code == "broken_checkpoint"
    assert "torchao, do not run on cpu in float32 (expected Float but found BFloat16)" in str(error.value)


def test_an_asked_dtype_wins(folder: Callable[[str], Path]) -> None:
    at = folder("llava")
    with_dtype("dtype")(at)
    assert load_vlm(at, dtype=torch.float32).dtype == torch.float32


def refusal(source: Path, code: str) -> str:
    with pytest.raises(VlmError) as error:
        load_vlm(source)
    sentence = str(error.value)
    assert error.value.code == code, sentence
    assert str(source) in sentence
    assert "\n" not in sentence
    assert len(sentence) < 600
    return sentence
