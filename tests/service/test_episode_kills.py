"""Servers that are killed at moments nobody chose: what they had acknowledged is there afterwards."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.loopback import PATIENCE_S, START_S, free_port, wait_for
from tests.service.conftest import running
from tests.service.episodes import ask, begin, push

ROOT = Path(__file__).parents[2]
KILLS = 20
LONGEST_LIFE_S = 1.5
"""From the first frame of a server to its end: about 60 frames that were encoded before."""
FRAMES = 12
METHOD = {"merge_frames": "seen", "max_visual_tokens": 60, "method": "none"}


PARENT = """
import os, sys
from service.app import create_app
from service.server.uvicorn_server import serve
from service.settings import Settings
import transformers.models.llava_onevision.modeling_llava_onevision
import transformers.models.siglip.modeling_siglip
import transformers.models.qwen2.modeling_qwen2
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        settings = Settings()
        os._exit(serve(create_app(settings), "127.0.0.1", int(line), settings))
    print(child, flush=True)
    os.waitpid(child, 0)
"""
"""Starts servers that find torch and transformers imported: twenty starts would take minutes otherwise."""


class Servers:
    """Start servers one after another that keep episodes in one folder."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        own = {"EPISODES_DIR": str(folder), "MODEL": str(checkpoint), "DEPTH_MODEL": "none"}
        environment = {f"TOSA_VQA_{name}": value for name, value in own.items()}
        self._parent = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            cwd=ROOT,
            env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},  # no threads that a fork would lose
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def serving(self) -> Iterator[tuple[int, httpx.Client]]:
        """Start a server; yield its process id and a client. It is killed at the end if it is not yet."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        port = free_port()
        print(port, file=self._parent.stdin, flush=True)
        process = int(self._parent.stdout.readline())
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
                wait_for(lambda: _is_ready(client), START_S)
                yield process, client
        finally:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def close(self) -> None:
        self._parent.kill()
        self._parent.communicate()


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def servers(checkpoint: Path, tmp_path: Path) -> Iterator[Servers]:
    made = Servers(checkpoint, tmp_path)
    yield made
    made.close()


def push_until_killed(process: int, client: httpx.Client, episode: str, sent: int, life_s: float) -> int:
    """Push frames from number `sent` on until the server is killed; return how many it has acknowledged."""
    acknowledged = sent
    killer = threading.Timer(life_s, os.kill, (process, signal.SIGKILL))
    killer.start()
    try:
        while True:
            response = push(client, episode, acknowledged % FRAMES, timestamp=float(acknowledged))
            assert response.status_code == 200, response.text
            assert response.json()["frame"] == acknowledged
            acknowledged += 1
    except httpx.TransportError:
        return acknowledged
    finally:
        killer.join()


@pytest.mark.long
def test_every_acknowledged_frame_outlives_twenty_kills(
    servers: Servers, checkpoint: Path, tmp_path: Path
) -> None:
    moments, frames, episode, survived = random.Random(16), 0, "", {}
    for life in range(KILLS + 1):
        with servers.serving() as (process, client):
            if not episode:
                episode = begin(client, **METHOD)
            state = client.get(f"/episodes/{episode}").json()
            # The frame in flight may have been written: then it counts, and is not sent again.
            assert frames <= state["frames"] <= frames + 1, f"after {life} kills"
            frames = state["frames"]
            if life == KILLS:
                survived = ask(client, episode).json()
                break
            frames = push_until_killed(
                process, client, episode, frames, moments.uniform(0.02, LONGEST_LIFE_S)
            )
    assert frames > 5 * KILLS, "the servers lived too short to show anything"
    assert not list(tmp_path.glob("*/.*.tmp")), "half written files were left"
    with running(checkpoint, depth_model="none", max_images=1) as client:
        whole = begin(client, **METHOD)
        for at in range(frames):
            push(client, whole, at % FRAMES, timestamp=float(at))
        expected = ask(client, whole).json()
    assert survived["answer"] == expected["answer"] and survived["usage"] == expected["usage"]
    assert survived["episode"]["kept"] == expected["episode"]["kept"]
