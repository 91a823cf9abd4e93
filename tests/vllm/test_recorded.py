"""What was recorded is what this server answers."""

from __future__ import annotations

import json
import os

import pytest

from bench.load.serving import Serving
from tests.vllm.recorded import EXCHANGES, FOLDER, alike, path_of, prompt_of, written
from vlm import Vlm

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("name", EXCHANGES)
def test_the_server_still_answers_as_it_did(server: Serving, alone: Vlm, name: str) -> None:
    found = written(EXCHANGES[name](server.url, prompt_of(alone)))
    if os.environ.get("VLLM_RECORD"):
        path_of(name).write_text(json.dumps(found, indent=1) + "\n")
    assert alike(found) == alike(json.loads(path_of(name).read_text()))


def test_nothing_else_is_kept() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(EXCHANGES)
