"""Two replicas of the vision side share a real vLLM server that wants a key; it dies and comes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from bench.load.serving import Serving, free_port
from bench.vllm_server import metrics, vllm_serving
from service.errors.table import CODES
from service.language.faults import KINDS
from tests.needs import needs, skip_without
from tests.ray.cluster import Cluster, running_cluster, until
from tests.ray.questions import answer_of, bundled, expected
from vlm.language_checkpoint import write_language_model

pytestmark = [pytest.mark.ray, needs("vllm")]
KEY = "a-long-secret-of-the-servers"
START_S = 300
DEADLINE_S = 20


@dataclass(eq=False)
class Language:
    """A vLLM server that can be killed, and started again at the same port."""

    folder: Path
    port: int
    running: ExitStack
    server: Serving | None = None

    def start(self) -> None:
        options = (
            "--enable-prompt-embeds",
            "--max-model-len",
            "2048",
            "--block-size",
            "32",
            "--api-key",
            KEY,
        )
        self.server = self.running.enter_context(vllm_serving(self.folder, *options, port=self.port))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        assert self.server is not None
        tree = self.server.tree()
        for one in tree:
            one.kill()
        psutil.wait_procs(tree[1:], 60)


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Language]:
    skip_without("vllm")
    folder = write_language_model("room-tiny", tmp_path_factory.mktemp("language") / "model").folder
    with ExitStack() as running:
        language = Language(folder, free_port(), running)
        language.start()
        yield language


@pytest.fixture(scope="module")
def apart(language: Language) -> Iterator[Cluster]:
    settings = {
        "LANGUAGE": "vllm",
        "LANGUAGE_URLS": language.url,
        "LANGUAGE_API_KEY": KEY,
        "LANGUAGE_PROBE": str(language.folder),
        "MAX_QUEUE": "8",
        "MAX_BATCH": "2",
    }
    given = {f"TOSA_VQA_{name}": value for name, value in settings.items()}
    with running_cluster(replicas=2, **given) as cluster, cluster.client() as client:
        until(lambda: all(is_ready(client) for _ in range(8)), START_S)
        yield cluster


def test_answers_are_those_of_one_process(apart: Cluster, language: Language) -> None:
    before = metrics(language.url)["vllm:request_success_total"]
    requests = bundled()
    with apart.client(120) as client, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda one: answer_of(one.post(client)), requests))
    assert dict(zip(requests, answers, strict=True)) == expected()
    assert metrics(language.url)["vllm:request_success_total"] - before == len(requests)


def test_both_sides_show_their_metrics(apart: Cluster, language: Language) -> None:
    """Those of the dashboard: ours of a replica, and the times of vLLM by its own clock."""
    with apart.client() as client:
        timings = bundled()[0].post(client).json()["timings_ms"]
        assert {"language_queue", "prefill", "generate"} <= set(timings)
        for _ in range(8):
            shown = client.get("/metrics").text
            assert "tosa_vqa_language_servers_up 1.0" in shown
            assert 'tosa_vqa_language_answers_total{outcome="ok"}' in shown
            assert KEY not in shown
    found = metrics(language.url)
    for name in ("queue", "prefill", "decode"):
        assert found[f"vllm:request_{name}_time_seconds_count"] >= 1
    assert found["vllm:num_requests_running"] == found["vllm:num_requests_waiting"] == 0
    assert "vllm:prefix_cache_hits_total" in found


def test_a_killed_server_loses_nothing_silently_and_comes_back(apart: Cluster, language: Language) -> None:
    replicas = set(apart.replicas())
    requests = bundled() * 4
    with apart.client(2 * DEADLINE_S) as client, ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(one.post, client, timeout_s=str(DEADLINE_S)) for one in requests]
        until(lambda: sum(one.done() for one in waiting) >= 8, 120)
        language.kill()
        ends = Counter(
            "right" if one.result().status_code == 200 and answer_of(one.result()) == expected()[asked]
            else code_of(one.result())
            for asked, one in zip(requests, waiting, strict=True)
        )  # fmt: skip
        assert ends["right"] >= 8 and set(ends) - {"right"} <= {"language_cut", "language_down"}, ends
        until(lambda: not any(is_ready(client) for _ in range(8)), 60)
        assert code_of(client.get("/readyz")) == "language_down"
        language.start()
        until(lambda: all(is_ready(client) for _ in range(8)), START_S)
        assert answer_of(requests[0].post(client)) == expected()[requests[0]]
    assert set(apart.replicas()) == replicas, "no replica had to be replaced"


def code_of(response: httpx.Response) -> str:
    code = response.json()["error"]["code"]
    assert response.status_code == CODES[code].status
    assert KINDS[code].retry_after_s is None or int(response.headers["Retry-After"]) >= 1
    return code


def is_ready(client: httpx.Client) -> bool:
    """Say whether the replica that happens to be asked is ready."""
    return client.get("/readyz").status_code == 200
