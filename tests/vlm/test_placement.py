"""Models on several devices: who is where, what moves, and that answers stay the same.

No test needs a second device: `two_devices` has one whose tensors cannot meet those on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vlm.load
import vlm.placement
import vlm.weights
from tests.needs import needs
from tests.vlm.families import CASES, write_family
from tests.vlm.family_pictures import pictures, read
from tests.vlm.two_devices import CPU, SECOND, There, move, second_device
from tosa import MergeSpec
from vlm import Decoding, GenerationParams, Vlm, VlmError, load_vlm
from vlm.language import embed
from vlm.placement import Devices, by_name, connect, devices_of, place, split

META = torch.device("meta")
DECODERS = ("llava_onevision", "qwen3_vl", "qwen3_5")  # plain, with deepstack, with recurrent layers


def answer(vlm: Vlm) -> tuple[Tensor, list[list[int]]]:
    """Return the first logits and the tokens of two prompts read together, one of which ends earlier."""
    prompts = [
        read(vlm, pictures([size]), MergeSpec("tome", keep_ratio=0.5)) for size in ((96, 128), (300, 400))
    ]
    params = [GenerationParams(max_new_tokens=most) for most in (3, 8)]
    running = Decoding(vlm, [ids for ids, _ in prompts], [visuals for _, visuals in prompts], params)
    logits = running._logits
    assert logits is not None
    while running.active:
        running.step()
    return logits, [row.token_ids for row in running.rows]


def divided(folder: Path) -> Vlm:
    """Load a model, and move all layers but the first to SECOND."""
    loaded = load_vlm(folder)
    text_model = loaded.family.text_model(loaded.core)
    places = [CPU, *[SECOND] * (len(text_model.layers) - 1)]
    for layer in text_model.layers[1:]:
        move(layer)
    connect(loaded.model, text_model, places, CPU)
    return loaded


# Which device has what.


@pytest.mark.parametrize(
    ("room", "evenly", "expected"),
    [
        ((100, 100), False, [0, 0, 0, 0, 0, 0]),
        ((50, 100), False, [0, 0, 1, 1, 1, 1]),
        ((50, 25, 100), False, [0, 0, 1, 1, 2, 2]),
        ((30, 100), False, [1, 1, 1, 1, 1, 1]),
        ((100, 100), True, [0, 0, 1, 1, 1, 1]),
        ((100, 100, 100), True, [1, 1, 1, 2, 2, 2]),
        ((100, 20, 100), True, [0, 1, 1, 2, 2, 2]),
        ((90, 0), True, [0, 0, 0, 0, 0, 0]),
        ((90, 0), False, [0, 0, 0, 0, 0, 0]),
        ((29, 100), False, None),
        ((29, 100), True, None),
        ((50, 39), False, None),
        ((50, 39), True, None),
        ((9,), True, None),
    ],
)
def test_layers_are_split_in_order_and_within_the_room(
    room: tuple[int, ...], evenly: bool, expected: list[int] | None
) -> None:
    """Six layers of 10 bytes, beside 30 that the first device has to have."""
    assert split(30, [10] * 6, room, evenly=evenly) == expected


def empty(vlm: Vlm) -> Any:
    with META:
        return type(vlm.model)(vlm.model.config)


@pytest.mark.parametrize("name", CASES)
def test_every_part_has_a_place_and_only_layers_are_elsewhere(member: Callable[..., Any], name: str) -> None:
    it: Vlm = member(name).vlm
    model = empty(it)
    layers = it.family.text_model(model.model).layers
    one, two = torch.device("cuda:0"), torch.device("cuda:1")
    whole = sum(each.numel() for each in model.parameters()) * 2
    fits = Devices({one: whole, two: whole}, evenly=False)
    assert place(model, layers, fits, torch.bfloat16) == [one] * len(layers)
    tight = Devices({one: whole - 1, two: whole}, evenly=False)
    places = place(model, layers, tight, torch.bfloat16)
    assert places == [one] * (len(layers) - 1) + [two]
    found = by_name(model, layers, places, one)
    assert "" not in found
    last = next(part for part, module in model.named_modules() if module is layers[-1])
    for key in model.state_dict():
        of = [device for part, device in found.items() if f"{key}.".startswith(f"{part}.")]
        assert of == [two if key.startswith(f"{last}.") else one], key


def test_a_model_that_does_not_fit_says_what_it_needs(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "llava")
    with pytest.raises(
        VlmError, match=r"2 layers of up to 0\.00 GiB; there is room for 0\.00 GiB on cpu"
    ) as error:
        load_vlm(folder, device_map="auto", device_memory={"cpu": 1000})
    assert (error.value.code, str(folder) in str(error.value)) == ("unsupported_device_map", True)


def test_free_memory_of_every_gpu_is_used_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (1000 * (1 + gpu.index), 9999))
    found = devices_of("auto", torch.device("cuda:1"))
    assert found is not None and found.evenly
    assert {str(gpu): size for gpu, size in found.room.items()} == {
        "cuda:1": 1600,
        "cuda:0": 800,
        "cuda:2": 2400,
    }
    assert found.first == torch.device("cuda:1")
    assert devices_of("none", torch.device("cuda")) is None
    sequential = devices_of("sequential", torch.device("cuda"))
    assert sequential is not None and (sequential.evenly, str(sequential.first)) == (False, "cuda:0")


# Loading.


def test_one_device_with_room_for_all_is_the_model_as_it_was(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "llava_onevision")
    mapped = load_vlm(folder, device_map="auto", device_memory={"cpu": 1e9})
    logits, tokens = answer(load_vlm(folder))
    ours, found = answer(mapped)
    assert torch.equal(ours, logits) and found == tokens
    assert mapped.device == CPU


@pytest.mark.parametrize("name", DECODERS)
def test_weights_are_read_to_their_places_and_the_tower_has_no_hooks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = write_family(tmp_path, name)
    monkeypatch.setattr(vlm.placement, "available_device", lambda device, _: torch.device(device))
    everywhere = lambda model, layers, *_: [CPU, *[META] * (len(layers) - 1)]  # noqa: E731
    monkeypatch.setattr(vlm.weights, "place", everywhere)
    monkeypatch.setattr(vlm.load, "_try_answer", lambda *_: None)
    loaded = load_vlm(folder, device_map="auto", device_memory={"cpu": 1e9, "meta": 1e9})
    text_model = loaded.family.text_model(loaded.core)
    elsewhere = {id(each) for each in nn.ModuleList(text_model.layers[1:]).parameters()}
    assert elsewhere
    for key, each in loaded.model.named_parameters():
        assert each.device == (META if id(each) in elsewhere else CPU), key
    hooked = {id(module) for module in loaded.model.modules() if "forward" in vars(module)}
    assert hooked == {id(each) for each in (*text_model.layers[1:], text_model.norm)}
    assert torch.equal(seen(loaded), seen(load_vlm(folder)))


def seen(vlm: Vlm) -> Tensor:
    """Return what the language model would read of a picture."""
    ids, visuals = read(vlm, pictures([(96, 128)]), MergeSpec("tome", keep_ratio=0.5))
    with torch.inference_mode():
        return embed(vlm, ids, visuals)


def test_a_divided_model_answers_once_at_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Expected all tensors to be on the same device")

    monkeypatch.setattr(vlm.load, "generate", fail)
    with pytest.raises(VlmError, match=r"divided among cpu, do not run .*same device.*leave device_map"):
        load_vlm(write_family(tmp_path, "llava"), device_map="auto", device_memory={"cpu": 1e9})


# Running.


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in DECODERS else pytest.mark.long) for name in CASES]
)
def test_a_divided_model_answers_to_the_last_bit(member: Callable[..., Any], name: str) -> None:
    it = member(name)
    logits, tokens = answer(it.vlm)
    apart = divided(it.folder)
    assert {each.device for each in apart.model.parameters()} == {CPU, SECOND}
    before = state_of(apart.model)
    with second_device():
        ours, found = answer(apart)
    assert torch.equal(ours, logits) and found == tokens
    assert state_of(apart.model) == before


def state_of(model: nn.Module) -> Mapping[str, int]:
    return {
        f"{name}.{key}": id(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
    }


@pytest.mark.parametrize("without", ["the way there", "the way back"])
def test_a_divided_model_without_its_hooks_fails(member: Callable[..., Any], without: str) -> None:
    """A twin of the test above: it can fail."""
    from accelerate.hooks import remove_hook_from_module

    apart = divided(member("llava_onevision").folder)
    text_model = apart.family.text_model(apart.core)
    remove_hook_from_module(text_model.layers[1] if without == "the way there" else text_model.norm)
    with second_device(), pytest.raises(RuntimeError, match="two devices"):
        answer(apart)


def test_the_second_device_is_one() -> None:
    with second_device():
        here, there = torch.ones(2), torch.ones(2).to(SECOND)
        assert isinstance(there, There) and there.device == SECOND
        with pytest.raises(RuntimeError, match="two devices"):
            torch.add(here, there)
        assert torch.equal((there + 1).cpu(), here + 1)


@pytest.mark.gpu
def test_a_gpu_and_the_cpu_share_a_model(tmp_path: Path) -> None:
    folder = write_family(tmp_path, "qwen3_vl")
    sizes = {"cuda:0": 1e9, "cpu": 1e9}
    check_on_devices(folder, sizes)


@pytest.mark.gpu
@needs("two gpus")
@pytest.mark.parametrize("name", CASES)
def test_two_gpus_share_a_model(tmp_path: Path, name: str) -> None:
    check_on_devices(write_family(tmp_path, name), {"cuda:0": 1e9, "cuda:1": 1e9})


def check_on_devices(folder: Path, sizes: Mapping[str, float]) -> None:
    alone = load_vlm(folder, "cuda:0")
    apart = load_vlm(folder, "cuda:0", device_map="balanced", device_memory=sizes)
    assert {str(each.device) for each in apart.model.parameters()} == set(sizes)
    (logits, tokens), (ours, found) = answer(alone), answer(apart)
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    assert found == tokens


# Refusals.


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"device_map": "auto"}, "device_unavailable", ("finds no GPU", "leave device_map at none")),
        ({"device_memory": {"cpu": 1e9}}, "unsupported_device_map", ("needs a device_map",)),
        ({"device_map": "fast"}, "unsupported_device_map", ("fast", "sequential")),
        ({"device_map": "auto", "device_memory": {"cuda:7": 1e9}}, "device_unavailable", ("cuda:7",)),
        (
            {"device_map": "auto", "device_memory": {"cpu": 1e9}, "parts": "vision"},
            "unsupported_device_map",
            ("tower alone", "leave device_map at none"),
        ),
    ],
)
def test_what_cannot_be_shared_says_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    code: str,
    words: tuple[str, ...],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(VlmError) as error:
        load_vlm(write_family(tmp_path, "llava"), **options)
    assert error.value.code == code
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("file", "said", "words"),
    [
        ("adapter_config.json", {}, ("LoRA adapter", "merge it once")),
        ("config.json", {"quantization_config": {"quant_method": "fp8"}}, ("quantised by fp8", "at none")),
    ],
)
def test_weights_that_one_device_has_to_read_are_not_divided(
    tmp_path: Path, file: str, said: dict[str, Any], words: tuple[str, ...]
) -> None:
    folder = write_family(tmp_path, "llava")
    (folder / "model.safetensors").unlink()
    raw = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(raw | said))
    with pytest.raises(VlmError) as error:
        load_vlm(folder, device_map="auto", device_memory={"cpu": 1e9})
    assert error.value.code == "unsupported_device_map"
    assert all(word in str(error.value) for word in words), error.value


def test_without_accelerate_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vlm.placement, "find_spec", lambda name: None)
    with pytest.raises(VlmError, match=r"pip install 'tosa-vqa\[devices\]'") as error:
        load_vlm("room-tiny", device_map="auto", device_memory={"cpu": 1e9})
    assert error.value.code == "missing_package"
