"""Start the servers of a comparison side by side; one that is not asked uses no core."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.full_size.checkpoints import SHAPES, Shape, write_checkpoint
from bench.language.arms import Server
from bench.load.serving import Serving, ours, serving
from bench.vllm_server import ALL_CORES, vllm_serving
from vlm.language_checkpoint import write_language_model
from vlm.load import EMBEDDED

THREADS = "2"
QUEUE = {"TOSA_VQA_MAX_QUEUE": "256", "TOSA_VQA_REQUEST_TIMEOUT_S": "300", "HF_HUB_OFFLINE": "1"}
LONG = "small tower, Qwen2-0.5B"
TOWER = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 8,
    "num_attention_heads": 6,
}
"""The widths of room-tiny's tower: it is the language model that counts here."""


@dataclass(frozen=True)
class Embedded:
    """The servers that are asked, and the language server behind one of them."""

    ours: Mapping[Server, Serving]
    language: Serving


@contextmanager
def embedded(block: int) -> Iterator[Embedded]:
    """Serve room-tiny in all three ways, in float32. block: positions of a block of vLLM's prefix cache."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        language = write_language_model("room-tiny", Path(folder) / "language").folder
        options = ("--max-model-len", "2048", "--block-size", str(block))
        threads = {"OMP_NUM_THREADS": THREADS}
        images = ("--limit-mm-per-prompt", '{"image": 1, "video": 0}')
        bindings: dict[Server, dict[str, str]] = {"vllm alone": {}, "vllm alone, all cores": ALL_CORES}
        found: dict[Server, Serving] = {}
        for name, binding in bindings.items():
            is_as_shipped = name == "vllm alone"
            alone = vllm_serving(
                EMBEDDED["room-tiny"], *options, *images, env=threads | binding, worker=is_as_shipped
            )
            found[name] = running.enter_context(alone)
        behind = vllm_serving(language, "--enable-prompt-embeds", *options, env=threads | ALL_CORES)
        server = running.enter_context(behind)
        yield Embedded(found | _both(running, "room-tiny", server.url), server)


@contextmanager
def long_answers() -> Iterator[dict[Server, Serving]]:
    """Serve random weights in bfloat16: a small tower, and a language model of the shape of Qwen2-0.5B."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        (folder / "whole").mkdir()
        running.enter_context(_shape(LONG, replace(SHAPES["llava-onevision-0.5b"], vision=TOWER)))
        write_checkpoint(folder / "whole", LONG)
        language = write_language_model(folder / "whole", folder / "language").folder
        options = ("--enable-prompt-embeds", "--max-model-len", "2048", "--dtype", "bfloat16")
        threads = {"OMP_NUM_THREADS": THREADS} | ALL_CORES  # it has nearly all of the work
        behind = running.enter_context(vllm_serving(language, *options, env=threads))
        yield _both(running, str(folder / "whole"), behind.url)


def _both(running: ExitStack, model: str, url: str) -> dict[Server, Serving]:
    """Start our service twice: by itself, and in front of the language server."""
    command = ours("--model", model, "--depth-model", "none")
    threads = {"TOSA_VQA_NUM_THREADS": THREADS, "OMP_NUM_THREADS": THREADS, "OMP_WAIT_POLICY": "PASSIVE"}
    torch = serving(command, env=QUEUE | threads)
    apart = {"TOSA_VQA_LANGUAGE": "vllm", "TOSA_VQA_LANGUAGE_URLS": url}
    vllm = serving(command, env=QUEUE | threads | apart)
    return {"torch": running.enter_context(torch), "vllm": running.enter_context(vllm)}


@contextmanager
def _shape(name: str, shape: Shape) -> Iterator[None]:
    """Let `write_checkpoint` know one more shape."""
    SHAPES[name] = shape
    try:
        yield
    finally:
        del SHAPES[name]


def memory_mib(server: Serving) -> float:
    """Return the memory of a server and its children in MiB; what they share counts once (PSS)."""
    used = sum(process.memory_full_info().pss for process in server.tree())
    return round(used / 2**20, 1)
