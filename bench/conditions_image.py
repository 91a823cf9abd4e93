"""Draw the image at the head of docs/results.md: one room bright and dark, and what ToMe and ToSA merge.

python -m bench.conditions_image
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.overview_image import PANEL_PX, sheet
from evals.inputs import frame_inputs
from evals.rooms import TEST, make_scene, render
from evals.rooms.conditions import condition_of, spoil
from tosa import MergeSpec, make_plan
from vlm import Vlm, encode, load_vlm
from vlm.overlay import draw_groups

OUT = Path(__file__).parents[1] / "docs" / "images" / "bright-and-dark.png"
SEED = TEST.start + 11
KEEP = 0.1
COLOURS = 128  # in a palette; keeps the file small
LIGHT = {"bright": "clean", "dark": "dark:3"}
METHODS = {
    "ToMe, 58 tokens": MergeSpec("tome", keep_ratio=KEEP),
    "ToSA auto, 58 tokens": MergeSpec("tosa", keep_ratio=KEEP, alpha="auto"),
}


def main() -> None:
    vlm, frame = load_vlm("room-tiny"), render(make_scene(SEED))
    rows = []
    for light, label in LIGHT.items():
        condition = condition_of(label)
        rgb = frame.rgb if condition is None else spoil(frame.rgb, condition, SEED, frame.depth)
        panels = {light: Image.fromarray(rgb).resize((PANEL_PX, PANEL_PX), Image.Resampling.LANCZOS)}
        for name, spec in METHODS.items():
            panels[f"{light}, {name}"] = groups_of(vlm, rgb, frame.depth, spec)
        rows.append(sheet(panels))
    whole = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for number, row in enumerate(rows):
        whole.paste(row, (0, number * row.height))
    whole.quantize(COLOURS).save(OUT, optimize=True)


@torch.inference_mode()
def groups_of(vlm: Vlm, rgb: np.ndarray, depth_m: np.ndarray, spec: MergeSpec) -> Image.Image:
    """Draw the groups of patches that became one token each."""
    plan = make_plan(spec, vlm.shape)
    pixels, spatial = frame_inputs(vlm, rgb, depth_m)
    tokens = encode(vlm.tower, pixels, plan, spatial if plan.needs_spatial else None)
    image = Image.fromarray(rgb).resize((PANEL_PX, PANEL_PX), Image.Resampling.LANCZOS)
    return draw_groups(image, tokens.source[0].numpy(), vlm.shape.grid)


if __name__ == "__main__":
    main()
