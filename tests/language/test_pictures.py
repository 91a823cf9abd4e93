"""Qwen-VL with language servers: they are told where pictures are, and answer as the model here does."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from service.language.faults import Fault, of_status
from service.language.forms import form_of
from service.language.pictures import Pictures, packed
from service.language.probe import WeightsCheck
from service.language.wire import Received, request_fields
from tests.language.conftest import assert_a_schema_is_kept, same, served_by, unready
from tests.language.picture_stub import PictureStub, picture_stub, unpacked
from tests.language.test_same_answers import close
from tests.loopback import wait_for
from tests.service.chats import chat, image, text, user
from tests.service.conftest import Question
from tests.service.live import Live, live
from tests.vlm.families import end_by_a_token, write_family
from tests.vlm.family_pictures import picture
from vlm import GeneratedSequence, GenerationParams, VlmError, load_vlm
from vlm.families.qwen_vl import QwenVL
from vlm.language_checkpoint import write_language_model

KEPT = Path(__file__).parent / "recorded_pictures"
EOS = 5


@dataclass(frozen=True)
class Pair:
    """A service with its language model, one in front of a stub, and what they are made of."""

    here: Live
    apart: Live
    stub: PictureStub
    model: Path
    known: Path
    spoken: Pictures


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp(request.param)
    model, known = end_by_a_token(write_family(folder / "model", request.param)), folder / "known"
    write_language_model(model, known)
    with (
        picture_stub(load_vlm(model)) as stub,
        live(model) as here,
        served_by(model, stub, language_probe=str(known)) as apart,
    ):
        yield Pair(here, apart, stub, model, known, Pictures(load_vlm(model, parts="vision")))


def png(seed: int, size: tuple[int, int] = (90, 130)) -> bytes:
    buffer = io.BytesIO()
    picture(size, seed).save(buffer, "PNG")
    return buffer.getvalue()


def asked(pair: Pair, *images: bytes, **fields: Any) -> list[Any]:
    given = {"question": "what is left ?", "method": "none", "max_new_tokens": 6, **fields}
    question = Question(images, (), given)
    answers = [question.post(one.client, "json") for one in (pair.here, pair.apart)]
    assert all(answer.status_code == 200 for answer in answers), answers[-1].text
    return [same(answer.json()) for answer in answers]


def test_answers_are_those_of_this_process(pair: Pair) -> None:
    here, apart = asked(pair, png(0), png(1, (60, 60)))
    assert apart == here and pair.stub.pictures[-1] == 2
    here, apart = asked(pair, *map(png, range(3)), views="video")
    assert apart == here


def test_probabilities_are_those_of_this_process(pair: Pair) -> None:
    fields = {"logprobs": True, "top_logprobs": 3, "merge": {"method": "none"}, "temperature": 1.5, "seed": 4}
    request = chat(user(image(png(2)), text("what ?")), **fields)
    here, apart = (one.client.post("/v1/chat/completions", json=request) for one in (pair.here, pair.apart))
    assert apart.status_code == 200 and close(same(apart.json()), same(here.json()))
    assert pair.stub.requests[-1]["logprobs"] == 4, "the chosen token takes a place of its own"


@pytest.mark.parametrize("method", ["tome", "cubist"])
def test_merged_pictures_keep_their_grid(pair: Pair, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And give the answers of a model here that does so too."""
    fields = {"method": method, "keep_ratio": 0.5, "cache": False}
    here, apart = asked(pair, png(7), **fields)
    assert (here["merge"]["saves"], apart["merge"]["saves"]) == (["vit", "lm"], ["vit"])
    assert apart["usage"]["prompt_tokens"] > here["usage"]["prompt_tokens"]
    monkeypatch.setattr(QwenVL, "keeps_grids", True)
    here, apart = asked(pair, png(7), png(8, (60, 60)), **fields)
    assert apart == here and apart["merge"]["saves"] == ["vit"]


def test_answers_keep_to_a_schema(pair: Pair) -> None:
    assert_a_schema_is_kept(pair.here, pair.apart, png(2))


def test_pictures_of_other_salts_share_no_name(pair: Pair) -> None:
    def names(**fields: Any) -> dict[str, Any]:
        asked(pair, png(0), **fields)
        return pair.stub.requests[-1]["features"]["mm_hashes"]

    assert names() == names(question="and right ?") != names(cache=False)


def test_other_weights_are_seen_before_any_picture_is_sent(pair: Pair, tmp_path: Path) -> None:
    """Features of another width would end the engine of a vLLM server."""
    name = load_vlm(pair.model).family.config.model_type
    with picture_stub(load_vlm(write_family(tmp_path, name, seed=1))) as stranger:
        with unready(pair.model, stranger.url, language_probe=str(pair.known)) as client:
            wait_for(
                lambda: client.get("/readyz").json().get("error", {}).get("code") == "language_wrong_weights"
            )
        assert stranger.pictures and not any(stranger.pictures)


def test_without_known_answers_it_does_not_start(pair: Pair) -> None:
    vlm = load_vlm(pair.model, parts="vision")
    with pytest.raises(VlmError, match="language_probe"):
        WeightsCheck(vlm, None, form_of(vlm).encode)


def test_known_prompts_are_sent_as_pictures_of_one_cell_too(pair: Pair) -> None:
    assert 12 in pair.stub.pictures and pair.stub.pictures[0] == 0


ENDS = {
    "length": "length",
    "logprobs": "length",
    "drawn": "length",
    "tokens": "length",
    "outside": "language_refused",
    "other_model": "language_wrong_model",
}


@pytest.mark.parametrize("name", ENDS)
def test_what_a_real_server_answered_is_read(pair: Pair, name: str) -> None:
    kept = json.loads((KEPT / f"{name}.json").read_text())
    if kept["status"] != 200:
        assert of_status(kept["status"], kept["body"].encode(), {}).code == ENDS[name]
        return
    asked = kept["request"]["sampling_params"]
    top = asked.get("logprobs")
    params = GenerationParams(max_new_tokens=asked["max_tokens"], top_logprobs=top)
    answer = Received(GeneratedSequence(0, 10), params, params.max_new_tokens, 1000, frozenset({EOS}))
    events = [event.removeprefix("data: ") for event in kept["events"]] or [kept["body"]]
    events = [event for event in events if event != "[DONE]"]
    for event in events:
        for step in answer.steps(pair.spoken.event(json.loads(event))):
            answer.append(step)
    row = answer.row
    assert (row.finish_reason, len(row.token_ids)) == (ENDS[name], asked["max_tokens"])
    assert answer.cached_tokens is not None
    assert len(row.logprobs) == (len(row.token_ids) if top else 0)
    for likely in row.logprobs:
        assert likely.token_id in dict(likely.top) and list(likely.top) == sorted(
            likely.top, key=lambda one: -one[1]
        )


def test_the_stub_writes_what_a_real_server_writes(pair: Pair) -> None:
    fields = {"logprobs": True, "top_logprobs": 2, "merge": {"method": "none"}}
    pair.apart.client.post("/v1/chat/completions", json=chat(user(image(png(2)), text("what ?")), **fields))
    ours, real = pair.stub.written[-2], json.loads((KEPT / "logprobs.json").read_text())["events"][0]
    (choice,), (expected,) = (event["choices"] for event in (ours, json.loads(real.removeprefix("data: "))))
    assert {"index", "token_ids", "finish_reason", "logprobs"} <= choice.keys() & expected.keys()
    (step,), (wanted,) = (one["logprobs"]["content"] for one in (choice, expected))
    assert step.keys() == wanted.keys() - {"rank"}
    assert step["top_logprobs"][0].keys() == wanted["top_logprobs"][0].keys() - {"rank"}


def test_a_request_says_all_in_the_words_of_its_address(pair: Pair) -> None:
    asked(pair, png(0), max_new_tokens=3)
    sent = pair.stub.requests[-1]
    assert (sent["max_tokens"], sent["temperature"], sent["ignore_eos"], sent["detokenize"]) == (
        3,
        0,
        True,
        False,
    )
    fields = request_fields("m", GenerationParams(seed=3, temperature=1, top_logprobs=0), 4, [EOS], "salt")
    body = json.loads(pair.spoken.body(b'{"token_ids":[1],', fields))
    assert body.keys() == {"token_ids", "model", "stream", "stream_options", "cache_salt", "sampling_params"}
    assert (body["sampling_params"]["seed"], body["sampling_params"]["logprobs"]) == (3, 0)


def test_an_address_that_is_not_switched_on_is_no_matter_of_keys() -> None:
    """As vLLM says it without its switch."""
    words = {
        "error": {"message": "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out"}
    }
    assert of_status(403, json.dumps(words).encode(), {}).code == "language_refused"
    assert of_status(403, b"{}", {}).code == "language_key_refused"


@pytest.mark.parametrize("choices", [[{"logprobs": {}}], [{"logprobs": 3}], 3])
def test_events_of_another_form_are_garbled(pair: Pair, choices: Any) -> None:
    with pytest.raises(Fault, match="language_garbled"):
        pair.spoken.event({"choices": choices})


def test_a_probability_that_is_no_number_is_an_error(pair: Pair) -> None:
    step = {"token_id": 3, "logprob": -9999.0, "top_logprobs": [{"token_id": 4, "logprob": -9999.0}]}
    said = pair.spoken.event({"choices": [{"token_ids": [3], "logprobs": {"content": [step]}}]})
    params = GenerationParams(top_logprobs=1)
    with pytest.raises(Fault, match="numerical_error"):
        Received(GeneratedSequence(0, 1), params, 1, 10, frozenset()).steps(said)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_tensors_are_read_as_they_were_written(dtype: torch.dtype) -> None:
    given = torch.arange(12).view(3, 4).to(dtype)
    name, shape, data = unpacked(packed(given.T))
    assert (name, shape) == (str(dtype).removeprefix("torch."), [4, 3])
    assert torch.equal(torch.frombuffer(bytearray(data), dtype=dtype).view(4, 3), given.T)
    with pytest.raises(TypeError, match="complex"):
        packed(1j)
