"""Time what a request about a walk takes: encoding its frames, choosing tokens, and one answer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from evals.rooms.compare.batched_answers import answer_frames
from evals.rooms.walks.evaluate import MAX_NEW_TOKENS
from evals.rooms.walks.select import choose
from evals.rooms.walks.settings import PER_FRAME, Setting
from evals.rooms.walks.splits import WalkExample
from evals.rooms.walks.towers import Towers
from tosa import MergePlan
from vlm import Vlm

QUESTION = "How many objects are there?"
FRAMES_TIMED = 4
"""Of each walk, through the tower under one plan; all frames cost the same."""
Times = dict[str, float]


def time_settings(
    vlm: Vlm, towers: Towers, split: Sequence[WalkExample], every: Sequence[Setting]
) -> dict[str, Times]:
    """Return medians over walks in milliseconds, for each setting by name: encode, select, answer, all.

    Of frames that were encoded before: that is done again for the time of a plan alone. Selection includes
    finding the places of patches.
    """
    frame_ms: dict[tuple[int, ...], float] = {}
    found = {}
    for setting in every:
        plan = _plan(towers, setting)
        key = (plan.tokens_out, plan.method == "tome")
        if key not in frame_ms:
            frame_ms[key] = _frame_ms(towers, split, plan)
        select, answer = [], []
        for at, example in enumerate(split):
            one = choose(towers, example, split[at - 1], setting, vlm.shape.grid[0])
            visual = one.visual[None, None].to(vlm.device, vlm.dtype)
            select.append(1000 * one.seconds)
            answer.append(_milliseconds(lambda v=visual: answer_frames(vlm, v, [[QUESTION]], MAX_NEW_TOKENS)))
        spent = [frame_ms[key] * len(setting.shown), statistics.median(select), statistics.median(answer)]
        named = zip(("encode", "select", "answer", "all"), (*spent, sum(spent)), strict=True)
        found[setting.name] = {name: round(value, 1) for name, value in named}
    return found


def _plan(towers: Towers, setting: Setting) -> MergePlan:
    if setting.method in PER_FRAME:
        return towers.plan(setting.alone, setting.budget // len(setting.shown) - 1)
    return towers.inside(setting.inside)


def _frame_ms(towers: Towers, split: Sequence[WalkExample], plan: MergePlan) -> float:
    spent = [
        _milliseconds(lambda e=example, f=frame: towers.encode(e, f, plan))
        for example in split
        for frame in range(FRAMES_TIMED)
    ]
    return statistics.median(spent)


@torch.inference_mode()
def _milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)
