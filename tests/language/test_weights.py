"""A server with other weights answers nobody: known prompts have known answers, and `/readyz` says so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.language.faults import Fault
from service.language.forms import Embeds
from service.language.probe import WeightsCheck
from tests.language.conftest import served_by, unready
from tests.language.stub_server import Stub, stub_server
from tests.loopback import wait_for
from tests.service.conftest import Question
from tests.vlm.conftest import write_checkpoint
from vlm import TokenLogprob, Vlm, VlmError, load_vlm
from vlm.probe import probe, write_probe


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    """A server of the same shape and the same names, with other weights."""
    folder = write_checkpoint(tmp_path_factory.mktemp("language") / "other", seed=1)
    with stub_server(load_vlm(folder)) as stub:
        yield stub


@pytest.fixture
def known(whole: Vlm, tmp_path: Path) -> Path:
    """A folder with known answers, as `language-model` writes it."""
    write_probe(probe(whole), tmp_path)
    return tmp_path


def code_of(client: Any) -> str | None:
    return client.get("/readyz").json().get("error", {}).get("code")


def test_other_weights_are_seen_without_known_answers(checkpoint: Path, stranger: Stub) -> None:
    """By the embeddings of tokens, which the server has too."""
    with unready(checkpoint, stranger.url) as client:
        wait_for(lambda: code_of(client) == "language_wrong_weights")
        assert stranger.answered == 0


def test_other_weights_are_seen_by_known_answers(checkpoint: Path, stranger: Stub, known: Path) -> None:
    with unready(checkpoint, stranger.url, language_probe=str(known)) as client:
        wait_for(lambda: code_of(client) == "language_wrong_weights")
        assert all("prompt" not in request for request in stranger.requests[-4:]), "nothing else is needed"


@pytest.mark.parametrize(("logprob", "is_rounded"), [(-0.53, True), (-1.5, False)])
def test_weights_that_are_only_rounded_get_a_hint(whole: Vlm, logprob: float, is_rounded: bool) -> None:
    check = WeightsCheck(whole, None, lambda embeds: embeds)
    with pytest.raises(Fault) as refused:
        check._compare([TokenLogprob(1, -0.5, ())], [TokenLogprob(1, logprob, ())])
    assert ("start vLLM with --dtype float32" in str(refused.value)) == is_rounded


def test_known_answers_let_the_right_weights_through(
    checkpoint: Path, stub: Stub, known: Path, question: Question
) -> None:
    with served_by(checkpoint, stub, language_probe=str(known)) as served:
        assert question.post(served.client, "json").status_code == 200


def test_among_several_servers_the_wrong_one_gets_nothing(
    checkpoint: Path, stub: Stub, stranger: Stub, question: Question
) -> None:
    with served_by(checkpoint, stub, stranger) as served:
        for ratio in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
            assert (
                question.but(method="tome", keep_ratio=ratio).post(served.client, "json").status_code == 200
            )
        assert stranger.answered == 0


def test_known_answers_of_another_checkpoint_end_the_start(
    checkpoint: Path, whole: Vlm, stranger: Stub, tmp_path: Path
) -> None:
    write_probe(probe(stranger.vlm), tmp_path)
    encode = Embeds(whole).encode
    with pytest.raises(VlmError, match="revision"):
        WeightsCheck(whole, tmp_path, encode)
    with pytest.raises(VlmError, match="language_probe"):
        WeightsCheck(whole, tmp_path / "nothing", encode)


def test_known_answers_beside_the_checkpoint_are_found(checkpoint: Path, whole: Vlm, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    encode = Embeds(whole).encode
    assert WeightsCheck(load_vlm(copy), None, encode)._known is None
    write_probe(probe(whole), copy)
    assert WeightsCheck(load_vlm(copy), None, encode)._known is not None
