"""The training loop of all stages: schedule, clipping, progress, log, checkpoint, resume."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

B = TypeVar("B")  # the batch type of a stage


@dataclass(frozen=True)
class Plan:
    """One stage: where it writes, how long and how fast it learns; `until` ends it early, mid-schedule."""

    out: Path
    steps: int
    rate: float
    until: int | None = None
    warmup: int = 100
    decay_share: float = 0.3
    weight_decay: float = 0.05
    save_every: int = 200


def arguments(
    description: str | None, out: str, steps: int, rate: float, seed: int
) -> argparse.ArgumentParser:
    """The command line every stage has, with its own defaults."""
    args = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    args.add_argument("--out", type=Path, default=Path(out), help="resumes what is there")
    args.add_argument("--steps", type=int, default=steps, help="length of the learning-rate schedule")
    args.add_argument("--until", type=int, help="stop after this step, before the schedule ends")
    args.add_argument("--rate", type=float, default=rate)
    args.add_argument("--seed", type=int, default=seed)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--workers", type=int, default=1, help="processes that render")
    args.add_argument("--device", default="cpu")
    return args


def train(
    plan: Plan,
    parts: nn.ModuleDict,
    batches: Callable[[range], Iterable[B]],
    step_loss: Callable[[B, int], tuple[Tensor, dict[str, float]]],
) -> None:
    """Run the stage to its last step, resuming from `plan.out/last.pt` when it is there."""
    plan.out.mkdir(parents=True, exist_ok=True)
    trained = [value for value in parts.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=plan.rate, betas=(0.9, 0.98), weight_decay=plan.weight_decay)
    first = _resume(plan, parts, optimiser)
    steps = range(first, min(plan.until or plan.steps, plan.steps))
    shown = tqdm(zip(steps, batches(steps), strict=False), initial=first, total=steps.stop)
    means: dict[str, float] = {}
    with (plan.out / "log.jsonl").open("a") as log:
        began = time.monotonic()
        for step, batch in shown:
            for group in optimiser.param_groups:
                group["lr"] = plan.rate * _schedule(plan, step)
            loss, measures = step_loss(batch, step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            for name, value in ({"loss": loss.item()} | measures).items():
                means[name] = 0.98 * means.get(name, value) + 0.02 * value
            if step % 20 == 19:
                shown.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
                log.write(
                    json.dumps({"step": step + 1, "seconds": round(time.monotonic() - began, 1)} | means)
                    + "\n"
                )
                log.flush()
            if (step + 1) % plan.save_every == 0 or step + 1 == steps.stop:
                _save(plan, parts, optimiser, step + 1)


def _schedule(plan: Plan, step: int) -> float:
    """Linear warm-up, constant, then linear to zero over the last `decay_share`."""
    left = (plan.steps - step) / max(1, plan.steps * plan.decay_share)
    return min(1.0, (step + 1) / plan.warmup, max(left, 0.0) if math.isfinite(left) else 1.0)


def _save(plan: Plan, parts: nn.ModuleDict, optimiser: torch.optim.Optimizer, step: int) -> None:
    state = {"parts": parts.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    part = plan.out / "last.pt.part"
    torch.save(state, part)
    part.replace(plan.out / "last.pt")


def saved(folder: Path) -> dict[str, Any]:
    """Load a stage's last checkpoint from any device: `parts`, `optimiser` and `step`."""
    return torch.load(folder / "last.pt", weights_only=True, map_location="cpu")


def _resume(plan: Plan, parts: nn.ModuleDict, optimiser: torch.optim.Optimizer) -> int:
    if not (plan.out / "last.pt").exists():
        return 0
    state = saved(plan.out)
    parts.load_state_dict(state["parts"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
