"""Time RoomQA's ray caster on one core; write bench/results/room_frames.json."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

from evals.machine import write_result
from evals.rooms import TEST, make_scene, render

RESULT = Path(__file__).parent / "results" / "room_frames.json"
FRAMES = 200


def main() -> None:
    times = []
    for seed in TEST[:FRAMES]:
        scene = make_scene(seed)
        began = time.perf_counter()
        render(scene, 384)
        times.append((time.perf_counter() - began) * 1000)
    result = {
        "size_px": 384,
        "frames": FRAMES,
        "median_ms": round(statistics.median(times), 2),
        "slowest_ms": round(max(times), 2),
    }
    write_result(RESULT, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
