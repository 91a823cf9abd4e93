"""What was recorded is what this server answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from bench.load.serving import Serving
from tests.vllm.client import Exchange
from tests.vllm.recorded import EXCHANGES, FOLDER, OF_BYTES, alike, path_of, prompt_of, written
from tests.vllm.speller import Speller
from vlm import Vlm

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("name", EXCHANGES)
def test_the_server_still_answers_as_it_did(server: Serving, alone: Vlm, name: str) -> None:
    _compare(name, EXCHANGES[name], server.url, alone)


@pytest.mark.parametrize("name", OF_BYTES)
def test_a_server_whose_tokens_are_bytes_does_too(speller: Speller, name: str) -> None:
    _compare(name, OF_BYTES[name], speller.serving.url, speller.vlm)


def _compare(name: str, ask: Callable[..., Exchange], url: str, vlm: Vlm) -> None:
    found = written(ask(url, prompt_of(vlm)))
    if os.environ.get("VLLM_RECORD"):
        path_of(name).write_text(json.dumps(found, indent=1) + "\n")
    assert alike(found) == alike(json.loads(path_of(name).read_text()))


def test_nothing_else_is_kept() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {*EXCHANGES, *OF_BYTES}
