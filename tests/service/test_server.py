"""The real thing: `python -m service serve` in its own process, asked over loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from service.pipeline.response_models import VqaResponse
from tests.loopback import PATIENCE_S, START_S, free_port, wait_for
from tests.service.conftest import Question


@contextmanager
def server(port: int, model: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "service", "serve", "--port", str(port), "--model", str(model)]
    environment = {**os.environ, "TOSA_VQA_DRAIN_PAUSE_S": "0"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_serve_answers_over_loopback_and_stops_when_asked(checkpoint: Path, question: Question) -> None:
    port = free_port()
    with (
        server(port, checkpoint) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as client,
    ):
        wait_for(lambda: _status(client, "/livez") == 200, START_S)
        wait_for(lambda: _status(client, "/readyz") == 200, START_S)
        answers = [question.post(client, form) for form in ("multipart", "json")]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert len({VqaResponse.model_validate(answer.json()).answer for answer in answers}) == 1
        assert answers[0].headers["server-timing"].startswith("receive;dur=")
        assert "server" not in answers[0].headers
        estimated = question.but(depths=(), method="tosa").post(client, "multipart").json()["depth"]
        assert (estimated["source"], estimated["estimator"]["id"]) == ("estimate", "room-depth-tiny")
        refused = question.but(images=(bytes(33 * 2**20),)).post(client, "multipart")
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")
        assert question.post(client, "multipart").status_code == 200
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output
    assert "Traceback" not in output and "room-depth-tiny has the licence apache-2.0" in output


def test_serve_ends_if_the_model_cannot_be_loaded(tmp_path: Path) -> None:
    """And if the estimator cannot, which tests/service/test_life.py asks for with the same exit code."""
    with server(free_port(), tmp_path) as process:
        output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 1, output
    assert "config.json is missing" in output and "Traceback" not in output


def _status(client: httpx.Client, url: str) -> int | None:
    try:
        return client.get(url).status_code
    except httpx.TransportError:
        return None
