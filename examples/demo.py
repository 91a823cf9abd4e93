"""Show the service at work: start it, ask the bundled frames with every method, print what happened, stop it.

Writes a picture of the merged patches per frame and method to examples/out/. Exits 1 if the server failed.
"""

from __future__ import annotations

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

import httpx
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from transformers.utils.logging import disable_progress_bar

from evals.rooms.score import is_right
from service.images import decode_image
from service.overlay import draw_groups
from service.pipeline import prepare, see
from service.schemas import VqaFields, VqaRequest
from service.settings import Settings
from service.timing import StageTimer
from vlm import load_vlm

HERE = Path(__file__).parent
FRAMES, OUT = HERE / "frames", HERE / "out"
METHODS: dict[str, dict[str, Any]] = {
    "none": {"method": "none"},
    "tome": {"method": "tome", "keep_ratio": 0.25},
    "tosa": {"method": "tosa", "keep_ratio": 0.25},
}
START_TIMEOUT_S = 180
console = Console(width=None if sys.stdout.isatty() else 130)


@dataclass(frozen=True)
class Asked:
    """One question about one frame with one method, and all that came back."""

    frame: str
    question: str
    truth: str
    method: str
    response: dict[str, Any]

    @property
    def is_right(self) -> bool:
        return is_right(self.response["answer"], self.truth)


def main() -> int:
    frames = sorted(path.parent for path in FRAMES.glob("*/scene.json"))
    if not frames:
        console.print(f"no frames in {FRAMES}; make one with: tosa-vqa scene --seed 1 --out {FRAMES}/1")
        return 1
    try:
        with server() as url:
            asked = ask_all(url, frames)
    except ServerFailed as error:
        console.print(f"[red]the server failed[/red]: {error}")
        return 1
    print_answers(asked)
    print_summary(asked)
    save_overlays(frames)
    return 0


class ServerFailed(Exception):
    """The server did not start, stopped early or refused a request; the text says which."""


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
            raise ServerFailed(f"exit code {status}\n{said(log)}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: IO[str]) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise ServerFailed(f"exit code {process.returncode}\n{said(log)}")
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise ServerFailed(f"not ready after {START_TIMEOUT_S} s\n{said(log)}")


def stop(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def said(log: IO[str]) -> str:
    log.seek(0)
    return log.read()[-2000:]


def ask_all(url: str, frames: list[Path]) -> list[Asked]:
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        return [
            ask(client, frame, question, method)
            for frame in track(frames, "asking", console=console, transient=True)
            for question in json.loads((frame / "scene.json").read_text())["questions"]
            for method in METHODS
        ]


def ask(client: httpx.Client, frame: Path, question: dict[str, str], method: str) -> Asked:
    files = {
        name: (frame / f"{file}.png").read_bytes() for name, file in (("image", "rgb"), ("depth", "depth"))
    }
    fields = {"question": question["question"], **METHODS[method]}
    try:
        response = client.post("/vqa", data=fields, files=files)
    except httpx.TransportError as error:
        raise ServerFailed(f"no answer: {error}") from error
    if response.status_code != 200:
        raise ServerFailed(response.text)
    return Asked(frame.name, question["question"], question["answer"], method, response.json())


def print_answers(asked: list[Asked]) -> None:
    table = Table(title="What the model answered", box=SIMPLE_HEAD)
    for column in ("frame", "question", "method", "answer", "truth"):
        table.add_column(column)
    for column in ("tokens in -> out", "vision ms", "total ms"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in asked:
        merge, timings = one.response["merge"], one.response["timings_ms"]
        is_first = one.method == next(iter(METHODS))
        table.add_row(
            one.frame if is_first else "",
            one.question if is_first else "",
            one.method,
            Text(one.response["answer"], style="green" if one.is_right else "red"),
            one.truth if is_first else "",
            f"{merge['tokens_in']} -> {merge['tokens_out']}",
            f"{timings['vision']:.1f}",
            f"{timings['total']:.1f}",
            end_section=one.method == list(METHODS)[-1],
        )
    console.print(table)


def print_summary(asked: list[Asked]) -> None:
    for method in METHODS:
        mine = [one for one in asked if one.method == method]
        vision_ms = median(one.response["timings_ms"]["vision"] for one in mine)
        flops = mine[0].response["merge"]["vit_flops_ratio"]
        right = sum(one.is_right for one in mine)
        speed = f"median vision {vision_ms:.1f} ms, {flops:.2f} of the vision FLOPs"
        console.print(f"{method}: {right} of {len(mine)} right, {speed}")


def save_overlays(frames: list[Path]) -> None:
    OUT.mkdir(exist_ok=True)
    disable_progress_bar()
    settings = Settings()
    vlm = load_vlm(settings.model, settings.device, settings.torch_dtype)
    for frame in frames:
        rgb, depth = (frame / "rgb.png").read_bytes(), (frame / "depth.png").read_bytes()
        image = decode_image(rgb, settings.max_image_px)
        for method, options in METHODS.items():
            asked = VqaRequest(VqaFields(question="?", **options), (rgb,), (depth,))
            tokens = see(vlm, prepare(vlm, asked, settings, StageTimer()))
            drawn = draw_groups(image, tokens.source[0].cpu().numpy(), vlm.shape.grid)
            drawn.save(OUT / f"{frame.name}-{method}.png")
    console.print(f"pictures of the merged patches: {OUT.relative_to(HERE.parent)}/")


if __name__ == "__main__":
    sys.exit(main())
