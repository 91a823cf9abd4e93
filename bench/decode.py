"""Time the stages of a decoding thread for one question; write bench/results/decode.json.

Milliseconds are CPU time of the thread, which never waits, so that other programs hardly disturb it.

python -m bench.decode                        # measure this checkout
python -m bench.decode --before before.json   # put its medians beside those of an older checkout
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from evals.environment import package_version
from evals.machine import write_result
from service.pipeline.models import Models, load_models
from service.pipeline.prepare import prepare
from service.request.schemas import VqaFields, VqaRequest
from service.settings import Settings
from service.timing import StageTimer

ROOM = Path(__file__).parent.parent / "examples" / "frames" / "room-1"
RESULT = Path(__file__).parent / "results" / "decode.json"
METHODS = ("cubist", "tosa")
STAGES = ("decode", "preprocess", "depth", "total")
QUESTION = "How many red cubes are in the room?"
SIZES = ((384, 384), (640, 480), (1920, 1080))
PACKAGES = ("torch", "torchvision", "transformers", "pillow", "numpy", "simplejpeg", "isal")
WARM_UP = 5


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--model", default="room-tiny")
    args.add_argument("--rounds", type=int, default=60)
    args.add_argument("--before", type=Path, help="a result of this benchmark on an older checkout")
    args.add_argument("--out", type=Path, default=RESULT)
    given = args.parse_args()
    settings = Settings(model=given.model)
    with ThreadPoolExecutor(1, initializer=_use_one_torch_thread) as decoder:
        runs = decoder.submit(measure, load_models(settings), settings, given.rounds).result()
    if given.before:
        _put_beside(runs, json.loads(given.before.read_text())["runs"])
    result = {
        "model": given.model,
        "rounds": given.rounds,
        "clock": "thread CPU",
        "versions": versions(),
        "runs": runs,
    }
    write_result(given.out, result)
    for run in runs:
        print(json.dumps(run))


def measure(models: Models, settings: Settings, rounds: int) -> list[dict[str, Any]]:
    """Prepare every question in turn, `rounds` times, without caches; return medians in ms by stage."""
    questions = [(method, name, _question(method, *files)) for method in METHODS for name, files in frames()]
    timings: list[list[dict[str, float | None]]] = [[] for _ in questions]
    for _ in range(WARM_UP + rounds):
        for timing, (_, _, request) in zip(timings, questions, strict=True):
            timer = StageTimer(time.thread_time)
            prepare(models, request, settings, timer)
            timing.append(dict(timer.timings_ms()))
    return [
        {
            "method": method,
            "frame": name,
            **{f"{stage}_ms": _median(timing[WARM_UP:], stage) for stage in STAGES},
        }
        for (method, name, _), timing in zip(questions, timings, strict=True)
    ]


def frames() -> list[tuple[str, tuple[bytes, bytes]]]:
    """Return (name, (image file, depth file)): the bundled frame, and JPEGs of it in several sizes."""
    rgb, depth = (ROOM / "rgb.png").read_bytes(), (ROOM / "depth.png").read_bytes()
    resized = [(f"jpeg {width}x{height}", _jpeg(rgb, depth, (width, height))) for width, height in SIZES]
    return [("png 384x384", (rgb, depth)), *resized]


def versions() -> dict[str, str | None]:
    """Return the versions that decide the speed; None for packages that an older checkout does not need."""
    return {"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}}


def _question(method: str, rgb: bytes, depth: bytes) -> VqaRequest:
    fields = VqaFields(question=QUESTION, method=method, keep_ratio=0.25, cache=False)
    return VqaRequest(fields, (rgb,), (depth,))


def _jpeg(rgb: bytes, depth: bytes, size: tuple[int, int]) -> tuple[bytes, bytes]:
    with Image.open(io.BytesIO(rgb)) as image:
        colours = _encoded(image.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=90)
    with Image.open(io.BytesIO(depth)) as image:
        millimetres = np.asarray(image)
    rows = np.arange(size[1]) * millimetres.shape[0] // size[1]
    columns = np.arange(size[0]) * millimetres.shape[1] // size[0]
    return colours, _encoded(Image.fromarray(millimetres[rows][:, columns]), "PNG")


def _encoded(image: Image.Image, container: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, container, **options)
    return buffer.getvalue()


def _median(timings: list[dict[str, float | None]], stage: str) -> float:
    return round(statistics.median(timing[stage] or 0.0 for timing in timings), 3)


def _put_beside(runs: list[dict[str, Any]], before: list[dict[str, Any]]) -> None:
    for run, old in zip(runs, before, strict=True):
        assert (run["method"], run["frame"]) == (old["method"], old["frame"]), "the same questions"
        run |= {f"{stage}_ms_before": old[f"{stage}_ms"] for stage in STAGES}


def _use_one_torch_thread() -> None:
    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
