"""Make the engine, the base images and every target of the Dockerfile; print times and sizes.

python -m bench.containers.build [TARGET ...]
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.containers import bases, wheels
from bench.containers.engine import ROOT, WORK, Engine, engine, install
from evals.machine import write_result

TARGETS = ("cpu", "load", "ray", "cuda")
REPORT = WORK / "images.json"
CUDA_GB = 16
"""Free disk that the build of `cuda` needs."""


@dataclass(frozen=True)
class Built:
    """One image. seconds: what this build took, parts cached or not. megabytes: 10**6 bytes, unpacked."""

    target: str
    seconds: float
    megabytes: int


def arguments(engine: Engine) -> list[str]:
    """Return the build arguments of this machine: its base image, and torch from a folder if it has one."""
    image = bases.python_image(engine)
    printed = engine(
        "run", "--rm", image, "python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"
    )
    words = ["--build-arg", f"PYTHON_IMAGE={image}"]
    folder = WORK / "torch"
    if wheels.gather(folder, printed.splitlines()[-1]):
        words += ["--build-context", f"torch={folder}"]
        words += ["--build-arg", "TORCH_CPU=--no-index --find-links /torch torch torchvision"]
    return words


def build(engine: Engine, target: str, words: list[str], context: Path = ROOT, tag: str = "") -> Built:
    """Build one target and tag it as the compose file does. Raises EngineFailed."""
    tag = tag or f"tosa-vqa:{target}"
    began = time.monotonic()
    engine(
        *("build", *engine.build_options, *words, "--target", target, "--tag", tag, str(context)),
        timeout_s=3600,
    )
    return Built(target, round(time.monotonic() - began, 1), size_mb(engine, tag))


def built_before() -> dict[str, dict[str, Any]]:
    """Return what earlier builds took, by target: of each the slowest, for which least was there already."""
    return json.loads(REPORT.read_text())["images"] if REPORT.exists() else {}


def size_mb(engine: Engine, image: str) -> int:
    return round(int(engine("image", "inspect", "--format", "{{.Size}}", image)) / 1e6)


def main(targets: list[str]) -> None:
    unknown = set(targets) - set(TARGETS)
    if unknown:
        raise SystemExit(f"there is no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    install()
    found = engine()
    if found is None:
        print("SKIPPED: no container engine, and it can be installed only by root on Debian", file=sys.stderr)
        return
    print(f"{found.version()}, {found.program}")
    words = arguments(found)
    report = built_before()
    for target in targets or TARGETS:
        free_gb = shutil.disk_usage(WORK).free / 1e9
        if target == "cuda" and not found.has("tosa-vqa:cuda") and free_gb < CUDA_GB:
            print(f"SKIPPED: cuda needs {CUDA_GB} GB of disk, there are {free_gb:.0f}", file=sys.stderr)
            continue
        built = build(found, target, words)
        slowest = max(built.seconds, report.get(target, {}).get("seconds", 0.0))
        report[target] = asdict(built) | {"seconds": slowest}
        print(f"{target:5} {built.seconds:6.1f} s {built.megabytes:6} MB", flush=True)
        write_result(REPORT, {"images": report})
    for image in bases.stand_ins(found):
        print(f"MISSING: {image} can be neither pulled nor made from Debian's packages", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
