"""Servers that are killed at moments nobody chose: what they had acknowledged is there afterwards."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def serving(checkpoint: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """Start a server that keeps episodes in a folder; it is killed at the end if it is not dead already."""
    port = free_port()
    environment = {
        **os.environ,
        "TOSA_VQA_EPISODES_DIR": str(folder),
        "TOSA_VQA_MODEL": str(checkpoint),
        "TOSA_VQA_DEPTH_MODEL": "none",
    }
    command = [sys.executable, "-m", "service", "serve", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
            wait_for(lambda: _is_ready(process, client), START_S)
            yield process, client
    finally:
        process.kill()
        process.wait()


def _is_ready(process: subprocess.Popen[bytes], client: httpx.Client) -> bool:
    assert process.poll() is None, "the server ended"
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def push_until_killed(
    process: subprocess.Popen[bytes], client: httpx.Client, episode: str, sent: int, life_s: float
) -> int:
    """Push frames from number `sent` on until the server is killed; return how many it has acknowledged."""
    acknowledged = sent
    killer = threading.Timer(life_s, process.kill)
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
def test_every_acknowledged_frame_outlives_twenty_kills(checkpoint: Path, tmp_path: Path) -> None:
    moments, frames, episode, survived = random.Random(16), 0, "", {}
    for life in range(KILLS + 1):
        with serving(checkpoint, tmp_path) as (process, client):
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
