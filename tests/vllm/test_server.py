"""A real vLLM server reads the prompt embeddings of the vision side, and answers as torch does."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch

from bench.load.serving import Serving
from tests.loopback import wait_for
from tests.vllm.client import MODEL, ask, body_of, busy
from tests.vllm.questions import asked
from tosa import MergeSpec
from vlm import Decoding, GenerationParams, TokenLogprob, Vlm, generate
from vlm.language import embed
from vlm.probe import TOP, largest_difference, probe_prompts, read_probe, tolerance

pytestmark = pytest.mark.vllm
SPECS = [MergeSpec(), MergeSpec("tome", keep_ratio=0.25), MergeSpec("tosa", keep_ratio=0.25)]
LIMIT = 16


def ends(vlm: Vlm) -> list[int]:
    return sorted(vlm.eos_token_ids)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.method)
def test_every_question_gets_the_token_ids_of_torch(
    server: Serving, whole: Vlm, alone: Vlm, spec: MergeSpec
) -> None:
    ours, theirs = asked(whole, spec), asked(alone, spec)
    assert len(ours) >= 24

    def answered(number: int) -> tuple[list[int], str | None]:
        body = body_of(theirs[number].embeds(alone), max_tokens=LIMIT, stop_token_ids=ends(alone))
        exchange = ask(server.url, body)
        return [id_ for id_ in exchange.token_ids if id_ not in alone.eos_token_ids], exchange.finish_reason

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(answered, range(len(theirs))))
    params = GenerationParams(max_new_tokens=LIMIT)
    expected = [generate(whole, each.ids, each.features, params) for each in ours]
    assert found == [(list(each.token_ids), each.finish_reason) for each in expected]


def test_logprobs_are_those_of_torch(server: Serving, whole: Vlm) -> None:
    first = asked(whole, SPECS[0])[0]
    params = GenerationParams(max_new_tokens=4, top_logprobs=3)
    decoding = Decoding(whole, [first.ids], [first.features], [params])
    while decoding.active:
        decoding.step()
    body = body_of(
        first.embeds(whole),
        max_tokens=4,
        logprobs=3,
        return_tokens_as_token_ids=True,
        stop_token_ids=ends(whole),
    )
    got = [each for each in logprobs_of(server, body) if each.token_id not in whole.eos_token_ids]
    for ours, theirs in zip(decoding.rows[0].logprobs, got, strict=True):
        assert ours.token_id == theirs.token_id
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert [id_ for id_, _ in ours.top] == [id_ for id_, _ in theirs.top]


def logprobs_of(server: Serving, body: dict[str, object]) -> list[TokenLogprob]:
    """Read the log-probabilities of one answer: `token_id:N` stands for a token."""
    found = []
    for chunk in ask(server.url, body).chunks:
        for choice in chunk["choices"]:
            said = choice["logprobs"]
            for token, value, top in zip(
                said["tokens"], said["token_logprobs"], said["top_logprobs"], strict=True
            ):
                likely = sorted(
                    ((_id(name), other) for name, other in top.items()), key=lambda each: -each[1]
                )
                found.append(TokenLogprob(_id(token), value, tuple(likely)))
    return found


def _id(token: str) -> int:
    return int(token.removeprefix("token_id:"))


def test_the_probe_knows_these_weights_and_no_others(server: Serving, whole: Vlm, alone: Vlm) -> None:
    assert alone.family.folder is not None
    known = read_probe(alone.family.folder)
    assert known is not None
    answers = {"embeds": [], "ids": [], "other table": []}
    more = {"max_tokens": 1, "logprobs": TOP, "return_tokens_as_token_ids": True, "ignore_eos": True}
    for prompt in probe_prompts(alone):
        with torch.inference_mode():
            embeds = embed(alone, prompt)[0]
        answers["embeds"] += logprobs_of(server, body_of(embeds, **more))
        answers["ids"] += logprobs_of(server, body_of(None, prompt=prompt[0].tolist(), **more))
        answers["other table"] += logprobs_of(server, body_of(embeds.roll(1, dims=-1), **more))
    limit = tolerance(alone.dtype)
    assert largest_difference(known.answers, answers["embeds"]) < limit / 10
    assert largest_difference(answers["ids"], answers["embeds"]) < limit / 10
    assert largest_difference(known.answers, answers["other table"]) > limit


def test_closing_the_connection_aborts(server: Serving, alone: Vlm) -> None:
    embeds = asked(alone, SPECS[1])[0].embeds(alone)
    body = body_of(embeds, max_tokens=800, ignore_eos=True)
    begun = threading.Barrier(8)

    def leave(_: int) -> None:
        with (
            httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client,
            client.stream("POST", "/v1/completions", json=body) as response,
        ):
            next(response.iter_lines())
            begun.wait(60)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave, range(8)))
    wait_for(lambda: busy(server.url) == 0)


def test_prompts_of_one_frame_share_what_was_read(server: Serving, alone: Vlm) -> None:
    """The cached tokens of the second question are the picture's, in whole blocks of the server."""
    first, second = (each.embeds(alone) for each in asked(alone, MergeSpec("pool", keep_ratio=0.5))[:2])
    shared = int((first[: len(second)] == second[: len(first)]).all(dim=1).long().cumprod(dim=0).sum())
    for embeds in (first, second):
        usage = ask(server.url, body_of(embeds)).chunks[-1]["usage"]
    assert usage["prompt_tokens"] == len(second)
    assert shared - 32 <= usage["prompt_tokens_details"]["cached_tokens"] <= shared


def test_a_seed_gives_the_same_answer_again(server: Serving, alone: Vlm) -> None:
    embeds = asked(alone, SPECS[1])[0].embeds(alone)
    more = {"temperature": 2.0, "ignore_eos": True, "max_tokens": 12}
    once, again = (
        [ask(server.url, body_of(embeds, seed=seed, **more)).token_ids for seed in range(4)] for _ in "12"
    )
    assert once == again and once[0] != once[1]


def test_the_server_says_how_long_prompts_may_be(server: Serving) -> None:
    (model,) = httpx.get(f"{server.url}/v1/models", trust_env=False).json()["data"]
    assert (model["id"], model["max_model_len"]) == (MODEL, 1024)
