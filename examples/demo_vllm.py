"""Put the service in front of a vLLM server, ask about the bundled frames with three methods, and stop both.

The service merges; vLLM reads the embeddings and writes the answers. Exits 1 if a server failed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.load.serving import ServerFailed, ours, serving
from bench.vllm_server import vllm_serving
from evals.rooms.score import is_right
from vlm.language_checkpoint import write_language_model

FRAMES = sorted(path.parent for path in (Path(__file__).parent / "frames").glob("*/scene.json"))
SPECS = ({"method": "none"}, {"method": "tome", "keep_ratio": 0.25}, {"method": "tosa", "keep_ratio": 0.25})
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
    except ServerFailed as error:
        console.print(f"[red]a server failed[/red]: {error}")
        return 1
    return 0


def ask_all(url: str) -> dict[str, list[dict[str, Any]]]:
    """Ask every question with every method; return the answers by method."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        for frame in FRAMES:
            files = {
                part: (frame / f"{name}.png").read_bytes()
                for part, name in (("image", "rgb"), ("depth", "depth"))
            }
            for each in json.loads((frame / "scene.json").read_text())["questions"]:
                for spec in SPECS:
                    response = client.post("/vqa", data={"question": each["question"], **spec}, files=files)
                    if response.status_code != 200:
                        raise ServerFailed(response.text)
                    answer = response.json()
                    is_true = is_right(answer["answer"], each["answer"])
                    found[spec["method"]].append(answer | {"is_right": is_true})
    return found


def print_answers(found: dict[str, list[dict[str, Any]]]) -> None:
    """Print what each method took, by its stages: the language stages are vLLM's."""
    stages = list(dict.fromkeys(name for answers in found.values() for name in answers[0]["timings_ms"]))
    stages = [name for name in stages if name not in ("receive", "estimate")]
    table = Table(title="Mean time of every stage, in ms", box=SIMPLE_HEAD)
    for column in ("method", "right", "tokens", *stages):
        table.add_column(column)
    for method, answers in found.items():
        means = [sum(each["timings_ms"].get(name) or 0 for each in answers) / len(answers) for name in stages]
        right = f"{sum(each['is_right'] for each in answers)} of {len(answers)}"
        tokens = str(answers[0]["merge"]["tokens_out"])
        table.add_row(method, right, tokens, *(f"{mean:.1f}" for mean in means))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
