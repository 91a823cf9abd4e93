"""Draw every method on the same frame for docs/methods.md: groups, film strips, tokens per layer.

python -m bench.method_images
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from evals.inputs import frame_inputs
from evals.rooms import TEST, make_scene, render
from tosa import METHODS, MergeSpec, Tokens, make_plan
from vlm import encode, load_vlm
from vlm.overlay import draw_groups, plot_tokens, strip_of

OUT = Path(__file__).parents[1] / "docs" / "images"
SEED = TEST.start + 11
KEEP = 0.25
COLOURS = 128  # in a palette; keeps the files small
STRIPS = ("tome", "tosa", "cubist")


@torch.inference_mode()
def main() -> None:
    vlm = load_vlm("room-tiny")
    frame = render(make_scene(SEED))
    image = Image.fromarray(frame.rgb)
    pixels, spatial = frame_inputs(vlm, frame.rgb, frame.depth)
    _save(image, "frame")
    specs = {name: MergeSpec(name, keep_ratio=KEEP) for name, method in METHODS.items() if method.merges}
    plans = {name: make_plan(spec, vlm.shape) for name, spec in specs.items()}
    for name, plan in plans.items():
        trace: list[Tokens] = []
        tokens = encode(vlm.tower, pixels, plan, spatial if plan.needs_spatial else None, trace=trace)
        _save(draw_groups(image, tokens.source[0].numpy(), vlm.shape.grid), name)
        if name in STRIPS:
            _save(strip_of(image, trace, vlm.shape.grid), f"{name}-strip")
    schedules = [replace(specs["tome"], schedule=word) for word in ("constant", "decreasing", "increasing")]
    shown = [*(make_plan(spec, vlm.shape) for spec in schedules), plans["saint"], plans["cubist"]]
    plot_tokens(shown, OUT / "tokens-per-layer.png")


def _save(image: Image.Image, name: str) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    image.quantize(COLOURS).save(OUT / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
