"""The measurements: each of its ways in turn, round after round, so that all meet the same machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from bench.episodes.asking import QUESTION, Robot, alone, at_once
from bench.episodes.frames import walk

FRAMES = 32
LOOK = 64
"""Different pictures of a long walk: the encoder sees each once, so that what is timed is all the rest."""
BLOCKS = 10
STEP_M = 0.02
"""How far a walk that never comes back goes on from frame to frame."""


def first_tokens(robot: Robot, rounds: int) -> dict[str, Any]:
    """Time the first token of questions to one frame and to 32, from memory and sent with the question."""
    frames = list(walk(FRAMES + 1))
    one, many, growing = robot.begin(), robot.begin(), robot.begin()
    robot.push(one, frames[0].body())
    for frame in frames[:FRAMES]:
        robot.push(many, frame.body())
        robot.push(growing, frame.body())

    def after_a_push() -> float:
        robot.push(growing, frames[FRAMES].body())
        return robot.first_token(f"/episodes/{growing}/vqa", QUESTION)

    ways: dict[str, Callable[[], float]] = {
        "memory of 1 frame": lambda: robot.first_token(f"/episodes/{one}/vqa", QUESTION),
        "memory of 32 frames": lambda: robot.first_token(f"/episodes/{many}/vqa", QUESTION),
        "memory of 32 frames, first question after a push": after_a_push,
        "1 frame sent": lambda: robot.first_token("/vqa", alone(frames[:1])),
        "32 frames sent": lambda: robot.first_token("/vqa", at_once(frames[:FRAMES])),
        "32 frames sent again": lambda: robot.first_token("/vqa", at_once(frames[:FRAMES], cache=True)),
    }
    taken = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, ask in ways.items():
            ms = ask()
            if number:  # the first is not counted
                taken[name].append(ms)
    for episode in (one, many, growing):
        robot.end(episode)
    return {"rounds": rounds, "ways": {name: spread(values) for name, values in taken.items()}}


def pushes(robot: Robot, rounds: int) -> dict[str, Any]:
    """Time pushes of frames that were never seen, beside what encoding them takes in a plain question."""
    frames = walk(2 * rounds + 2, first=1000)
    found: dict[str, Any] = {"rounds": rounds}
    for method in ("cover", "seen"):
        episode = robot.begin(merge_frames=method)
        pushed, encoded, between = list[float](), list[float](), list[float]()
        for at in range(0, len(frames), 2):
            spent = robot.encode(frames[at])["timings_ms"]
            ms, answer = robot.push(episode, {**frames[at + 1].body(), "cache": False})
            if at:
                encoded.append(
                    sum(spent[stage] or 0 for stage in ("decode", "preprocess", "depth", "vision"))
                )
                pushed.append(ms)
                between.append(ms - answer["timings_ms"]["vision"])
        robot.end(episode)
        ratios = [one / other for one, other in zip(pushed, encoded, strict=True)]
        found[method] = {
            "push": spread(pushed),
            "encoding": spread(encoded),
            "push without the encoder": spread(between),
            "ratio": round(statistics.median(pushed) / statistics.median(encoded), 3),
            "median_of_ratios": round(statistics.median(ratios), 3),
        }
    return found


def long_walk(
    robot: Robot, process: psutil.Process, number: int, method: str, step_m: float
) -> dict[str, Any]:
    """Push very many frames and return time and memory of each tenth; step_m: 0 stays in one room."""
    bodies = [frame.body() for frame in walk(LOOK)]
    episode = robot.begin(merge_frames=method)
    blocks = []
    for block in range(BLOCKS):
        taken = []
        for at in range(block * number // BLOCKS, (block + 1) * number // BLOCKS):
            body = walk(LOOK)[at % LOOK].body(0.5 * at, step_m * at) if step_m else bodies[at % LOOK]
            taken.append(robot.push(episode, body)[0])
        firsts = [robot.first_token(f"/episodes/{episode}/vqa", QUESTION) for _ in range(5)]
        state = robot.state(episode)
        blocks.append(
            {
                "frames": state["frames"],
                "push": spread(taken),
                "first_token": spread(firsts),
                "rss_mib": round(process.memory_info().rss / 2**20, 1),
                "episode_mib": round(state["bytes"] / 2**20, 3),
                "tokens": state["tokens"],
                "frames_with_tokens": len(state["kept"]),
                "cell_m": state["cell_m"],
            }
        )
        print(method, step_m, blocks[-1], flush=True)
    robot.end(episode)
    return {"method": method, "step_m": step_m, "blocks": blocks}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, lowest and highest, and the 95th percentile of many."""
    ordered = sorted(values)
    return {
        "median_ms": round(statistics.median(ordered), 2),
        "lowest_ms": round(ordered[0], 2),
        "p95_ms": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 2),
        "highest_ms": round(ordered[-1], 2),
    }
