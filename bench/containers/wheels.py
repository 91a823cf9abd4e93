"""A folder with torch for CPUs, where its index cannot be reached and its wheel is in $PIP_FIND_LINKS.

The registry's torchvision is linked with CUDA, so its compiled operators are left out here. Resizing, the one
thing that we and transformers use, needs none. Images of users get torchvision from the index, whole.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from bench.containers.engine import UV

# Without its library torchvision declares no operators, and yet describes these two.
DECLARED = """
import torch as _torch
for _name in ("torchvision::nms", "torchvision::qnms"):
    _torch.library.define(_name, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
COMPILED = (".so", ".libs/")


def gather(folder: Path, python: str) -> bool:
    """Fill a folder for `--build-context torch=FOLDER`; say whether this machine has torch for CPUs."""
    torch = torch_for_cpus(python)
    if torch is None:
        return False
    if (folder / torch.name).exists():
        return True
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        options = ("--no-deps", "--only-binary=:all:", "--python-version", python, "--dest", scratch)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", *options, torchvision_for(torch, python)]
        subprocess.run(pip, check=True)
        (whole,) = Path(scratch).glob("*.whl")
        without_compiled(whole, folder)
    shutil.copy(torch, folder)
    return True


def torch_for_cpus(python: str) -> Path | None:
    """Return the newest wheel of torch for CPUs and a Python such as 3.11, None if there is none."""
    tag = f"cp{python.replace('.', '')}"
    folders = [Path(word) for word in os.environ.get("PIP_FIND_LINKS", "").split() if Path(word).is_dir()]
    return max((each for folder in folders for each in folder.glob(f"torch-*+cpu-{tag}-*.whl")), default=None)


def torchvision_for(torch: Path, python: str) -> str:
    """Return the requirement of the torchvision that goes with a wheel of torch."""
    options = ["--quiet", "--no-header", "--no-annotate", "--python-version", python]
    done = subprocess.run(
        [UV, "pip", "compile", *options, "--find-links", torch.parent, "-"],
        input=f"torch=={torch.name.split('-')[1]}\ntorchvision\n",
        capture_output=True,
        text=True,
        check=True,
    )
    return next(line for line in done.stdout.splitlines() if line.startswith("torchvision=="))


def without_compiled(wheel: Path, folder: Path) -> Path:
    """Write a copy of torchvision's wheel without what is linked with CUDA."""
    made = folder / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        record = next(name for name in source.namelist() if name.endswith(".dist-info/RECORD"))
        lines = []
        for name in source.namelist():
            if name == record or any(part in name for part in COMPILED):
                continue
            content = source.read(name)
            if name == "torchvision/extension.py":
                content += DECLARED.encode()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}")
            target.writestr(name, content)
        target.writestr(record, "\n".join([*lines, f"{record},,", ""]))
    return made
