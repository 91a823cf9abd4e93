"""A tower that never saw merging, with the dense heads it was trained with (stage 2 of `training/`)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import SiglipVisionModel

from tosa import EncoderShape
from training.loop import saved
from training.model import DenseHeads, build_vision_config
from vlm import ViTAdapter, adapt

STEPS = 1800  # of stage 2, as `room-tiny` had them


@dataclass(frozen=True)
class Tower:
    """The layers, what reads their patches [B, P, C] -> [B, P, WIDTH], and their shape."""

    adapter: ViTAdapter
    heads: DenseHeads
    shape: EncoderShape
    digest: str
    step: int


def load_tower(folder: Path) -> Tower:
    """Load the last checkpoint of stage 2 in `folder`."""
    state = saved(folder)
    model = SiglipVisionModel(build_vision_config())
    heads = DenseHeads()
    for module, name in ((model, "tower."), (heads, "heads.")):
        module.load_state_dict(_part(state["parts"], name))
        module.eval()
    adapter = adapt(model)
    return Tower(adapter, heads, adapter.shape, _digest(state["parts"]), int(state["step"]))


def make_tower(folder: Path, threads: int) -> None:
    """Train one, or go on with what is there: about half an hour on two cores without other work."""
    command = [sys.executable, "-m", "training.stage2_tower", "--out", str(folder)]
    subprocess.run([*command, "--until", str(STEPS), "--threads", str(threads)], check=True)


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _digest(state: dict[str, Tensor]) -> str:
    hashed = hashlib.sha256()
    for name in sorted(state):
        hashed.update(name.encode() + state[name].to(torch.float32).numpy().tobytes())
    return hashed.hexdigest()[:16]
