"""Two real vLLM servers for all tests, half a minute each to start: the embedded language model; bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load.serving import Serving
from bench.vllm_server import vllm_serving
from tests.needs import skip_without
from tests.vllm.speller import Speller, speller_serving
from vlm import Vlm, load_vlm
from vlm.language_checkpoint import write_language_model


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded language model alone, as `tosa-vqa language-model` writes it."""
    skip_without("vllm")
    return write_language_model("room-tiny", tmp_path_factory.mktemp("language") / "model").folder


@pytest.fixture(scope="session")
def server(written: Path) -> Iterator[Serving]:
    options = ("--enable-prompt-embeds", "--max-model-len", "1024", "--block-size", "32")
    with vllm_serving(written, *options) as serving:
        yield serving


@pytest.fixture(scope="session")
def speller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Speller]:
    skip_without("vllm")
    with speller_serving(tmp_path_factory.mktemp("speller")) as speller:
        yield speller


@pytest.fixture(scope="session")
def whole() -> Vlm:
    return load_vlm("room-tiny")


@pytest.fixture(scope="session")
def alone() -> Vlm:
    return load_vlm("room-tiny", parts="vision")


def pytest_report_header() -> str:
    return f"vLLM: {os.environ.get('VLLM_PYTHON', 'none, its tests are skipped')}"
