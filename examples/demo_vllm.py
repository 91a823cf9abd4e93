"""Put the service in front of a vLLM server, ask about the bundled frames with three methods, and stop both.

The service merges; vLLM reads the embeddings and writes the answers. Exits 1 if a server failed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.load.serving import ServerFailed, ours, serving
from bench.vllm_server import vllm_serving
from evals.rooms.score import is_right
from tosa_vqa_client import Answer, Client, ClientError, TimingsMs
from vlm.language_checkpoint import write_language_model

FRAMES = sorted(path.parent for path in (Path(__file__).parent / "frames").glob("*/scene.json"))
SPECS: tuple[dict[str, Any], ...] = (
    {"method": "none"},
    {"method": "tome", "keep_ratio": 0.25},
    {"method": "tosa", "keep_ratio": 0.25},
)
VLLM = ("--enable-prompt-embeds", "--max-model-len", "1024", "--block-size", "32")
START_TIMEOUT_S = 600
console = Console(width=None if sys.stdout.isatty() else 130)


def main() -> int:
    try:
        with tempfile.TemporaryDirectory() as folder:
            written = write_language_model("room-tiny", Path(folder) / "language")
            console.print(f"the language model alone: {written.model_class}; vLLM takes a minute to start")
            with vllm_serving(written.folder, *VLLM) as vllm:
                command = ours("--language", "vllm", "--language-url", vllm.url)
                command += ["--language-probe", str(written.folder)]
                with serving(command, start_timeout_s=START_TIMEOUT_S) as service:
                    print_answers(ask_all(service.url))
    except (ServerFailed, ClientError) as error:
        console.print(f"[red]a server failed[/red]: {error}")
        return 1
    return 0


def ask_all(url: str) -> dict[str, list[tuple[Answer, bool]]]:
    """Ask every question with every method; return the answers by method, and whether each is right."""
    found: dict[str, list[tuple[Answer, bool]]] = defaultdict(list)
    with Client(url, timeout_s=120) as client:
        for frame in FRAMES:
            for each in json.loads((frame / "scene.json").read_text())["questions"]:
                for spec in SPECS:
                    answer = client.ask(each["question"], frame / "rgb.png", frame / "depth.png", **spec)
                    found[spec["method"]].append((answer, is_right(answer.answer, each["answer"])))
    return found


def print_answers(found: dict[str, list[tuple[Answer, bool]]]) -> None:
    """Print what each method took, by its stages: the language stages are vLLM's."""
    stages = [one.name for one in fields(TimingsMs) if one.name not in ("receive", "estimate")]
    table = Table(title="Mean time of every stage, in ms", box=SIMPLE_HEAD)
    for column in ("method", "right", "tokens", *stages):
        table.add_column(column)
    for method, answers in found.items():
        means = [
            sum(getattr(each.timings_ms, name) or 0 for each, _ in answers) / len(answers) for name in stages
        ]
        right = f"{sum(is_true for _, is_true in answers)} of {len(answers)}"
        tokens = str(answers[0][0].merge.tokens_out)
        table.add_row(method, right, tokens, *(f"{mean:.1f}" for mean in means))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
