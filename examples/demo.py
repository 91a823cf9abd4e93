"""Start the service, ask about the bundled frames with every method, print the answers, and stop it.

Writes images of the merged patches to examples/out/. Exits 1 if the server failed.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from evals.rooms.score import is_right
from service.cli.in_process import load_models_here
from service.pipeline.images import decode_image
from service.pipeline.merge_trace import see
from service.pipeline.prepare import prepare
from service.request.schemas import VqaFields, VqaRequest
from service.settings import Settings
from service.timing import StageTimer
from tosa import METHODS, Tokens
from tosa_vqa_client import Answer, Client, ClientError
from vlm.overlay import draw_groups, strip_of

HERE = Path(__file__).parent
FRAMES, OUT = HERE / "frames", HERE / "out"
SPECS: dict[str, dict[str, Any]] = {
    name: {"method": name, "keep_ratio": 0.25} if method.merges else {"method": name}
    for name, method in METHODS.items()
}
START_TIMEOUT_S = 180
console = Console(width=None if sys.stdout.isatty() else 130)


@dataclass(frozen=True)
class Answered:
    """One question about one frame with one method, and the response."""

    frame: str
    question: str
    truth: str
    method: str
    response: Answer

    @property
    def is_right(self) -> bool:
        return is_right(self.response.answer, self.truth)


def main() -> int:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("questions", nargs="?", type=int, default=3, help="about each frame, of six")
    questions = args.parse_args().questions
    frames = sorted(path.parent for path in FRAMES.glob("*/scene.json"))
    if not frames:
        console.print(f"no frames in {FRAMES}; make one with: tosa-vqa scene --seed 1 --out {FRAMES}/1")
        return 1
    try:
        with server() as url:
            answered = ask_all(url, frames, questions)
            alone = ask_without_depth(url, answered[0])
    except (ServerFailed, ClientError) as error:
        console.print(f"[red]the server failed[/red]: {error}")
        return 1
    print_answers(answered)
    print_summary(answered)
    print_without_depth(answered[0], alone)
    save_images(frames)
    return 0


class ServerFailed(Exception):
    """The server did not start, or stopped early; the text says which."""


@contextmanager
def server() -> Iterator[str]:
    """Run `tosa-vqa serve` on a free loopback port for the length of the block; yield its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "service", "serve", "--port", str(port)]
        process = subprocess.Popen(command, cwd=HERE.parent, stdout=log, stderr=subprocess.STDOUT)
        try:
            with console.status("starting the server"):
                wait_until_ready(url, process, log)
            yield url
        finally:
            status = stop(process)
        if status != 0:
            raise ServerFailed(f"exit code {status}\n{tail_of(log)}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: IO[str]) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    with Client(url) as client:
        while time.monotonic() < end:
            if process.poll() is not None:
                raise ServerFailed(f"exit code {process.returncode}\n{tail_of(log)}")
            if client.is_ready():
                return
            time.sleep(0.1)
    raise ServerFailed(f"not ready after {START_TIMEOUT_S} s\n{tail_of(log)}")


def stop(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def tail_of(log: IO[str]) -> str:
    log.seek(0)
    return log.read()[-2000:]


def ask_all(url: str, frames: list[Path], questions: int) -> list[Answered]:
    with Client(url, timeout_s=120) as client:
        return [
            ask(client, frame, question, method)
            for frame in track(frames, "asking", console=console, transient=True)
            for question in json.loads((frame / "scene.json").read_text())["questions"][:questions]
            for method in SPECS
        ]


def ask(client: Client, frame: Path, question: dict[str, str], method: str) -> Answered:
    asked = question["question"]
    response = client.ask(asked, frame / "rgb.png", frame / "depth.png", **SPECS[method])
    return Answered(frame.name, asked, question["answer"], method, response)


def ask_without_depth(url: str, like: Answered) -> Answer:
    """Ask the same question without depth: the server estimates the depth that ToSA needs."""
    with Client(url, timeout_s=120) as client:
        return client.ask(like.question, FRAMES / like.frame / "rgb.png", **SPECS["tosa"])


def print_answers(answered: list[Answered]) -> None:
    table = Table(title="What the model answered", box=SIMPLE_HEAD)
    for column in ("frame", "question", "truth", "answer, and by which methods where they differ"):
        table.add_column(column)
    for start in range(0, len(answered), len(SPECS)):
        row = answered[start : start + len(SPECS)]
        table.add_row(row[0].frame, row[0].question, row[0].truth, answers(row))
    console.print(table)


def answers(row: list[Answered]) -> Text:
    """List the distinct answers to one question, right ones in green."""
    by_answer: dict[str, list[Answered]] = {}
    for one in row:
        by_answer.setdefault(one.response.answer, []).append(one)
    lines = []
    for answer, given in by_answer.items():
        who = "" if len(by_answer) == 1 else f": {', '.join(one.method for one in given)}"
        lines.append(Text(f"{answer}{who}", style="green" if given[0].is_right else "red"))
    return Text("\n").join(lines)


def print_summary(answered: list[Answered]) -> None:
    table = Table(title="What it took", box=SIMPLE_HEAD)
    table.add_column("method")
    for column in (
        "right",
        "tokens in -> out",
        "median vision ms",
        "vision FLOPs against none",
        "frame remembered",
    ):
        table.add_column(column, justify="right")
    for method in SPECS:
        mine = [one for one in answered if one.method == method]
        merge = mine[0].response.merge
        seen = [one.response.timings_ms.vision or 0.0 for one in mine if not one.response.cached]
        table.add_row(
            method,
            f"{sum(one.is_right for one in mine)} of {len(mine)}",
            f"{merge.tokens_in} -> {merge.tokens_out}",
            f"{median(seen):.1f}",
            f"{merge.vit_flops_ratio:.2f}",
            f"{len(mine) - len(seen)} of {len(mine)}",
        )
    console.print(table)


def print_without_depth(like: Answered, response: Answer) -> None:
    depth, ms = response.depth, response.timings_ms.estimate
    estimator = depth.estimator if depth else None
    source = f"{depth.source} of {estimator.id}, {ms or 0.0:.1f} ms" if depth and estimator else "none"
    console.print(f"without depth.png, tosa: {like.question} {response.answer} (depth: {source})")


def save_images(frames: list[Path]) -> None:
    """Draw the merged patches of every frame and method at the end, and layer by layer for the first."""
    OUT.mkdir(exist_ok=True)
    settings = Settings()
    models = load_models_here(settings)
    for frame in frames:
        rgb, depth = (frame / "rgb.png").read_bytes(), (frame / "depth.png").read_bytes()
        image = decode_image(rgb, settings.max_image_px)
        for method, spec in SPECS.items():
            request = VqaRequest(VqaFields(question="?", **spec), (rgb,), (depth,))
            trace: list[Tokens] = []
            tokens = see(models, prepare(models, request, settings, StageTimer()), trace)
            drawn = draw_groups(image, tokens.source[0].cpu().numpy(), models.vlm.shape.grid)
            drawn.save(OUT / f"{frame.name}-{method}.png")
            if frame == frames[0]:
                strip_of(image, trace, models.vlm.shape.grid).save(OUT / f"{frame.name}-{method}-layers.png")
    console.print(f"images of the merged patches: {OUT.relative_to(HERE.parent)}/")


if __name__ == "__main__":
    sys.exit(main())
