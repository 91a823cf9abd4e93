"""Draw the image at the head of the README: one bundled frame, its depth, and what ToMe and ToSA merge in it.

python -m bench.overview_image
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from depth import depth_picture, metric_depth
from evals.inputs import frame_inputs
from tosa import MergeSpec, make_plan
from vlm import Vlm, encode, load_vlm
from vlm.overlay import draw_groups

ROOT = Path(__file__).parents[1]
FRAME = ROOT / "examples" / "frames" / "room-3"
OUT = ROOT / "docs" / "images" / "overview.png"
KEEP = 0.1
PANEL_PX, GAP_PX, LABEL_PX, FONT_PX = 480, 16, 44, 26
COLOURS = 192  # in a palette; keeps the image small


def main() -> None:
    vlm = load_vlm("room-tiny")
    rgb = np.asarray(Image.open(FRAME / "rgb.png").convert("RGB"))
    depth_m = np.asarray(Image.open(FRAME / "depth.png")).astype(np.float32) / 1000
    image = Image.fromarray(rgb).resize((PANEL_PX, PANEL_PX), Image.Resampling.LANCZOS)
    drawn = depth_picture(metric_depth(depth_m))  # a square, and a scale bar on its right
    panels = {"camera image: 576 patches": image, "depth": drawn.crop((0, 0, drawn.height, drawn.height))}
    for method, name in (
        ("tome", "ToMe, 58 tokens: by looks"),
        ("tosa", "ToSA, 58 tokens: by looks and depth"),
    ):
        panels[name] = groups_of(vlm, image, rgb, depth_m, method)
    sheet(panels).quantize(COLOURS).save(OUT, optimize=True)


@torch.inference_mode()
def groups_of(vlm: Vlm, image: Image.Image, rgb: np.ndarray, depth_m: np.ndarray, method: str) -> Image.Image:
    """Draw the groups that are left of the frame when a share KEEP of its tokens is kept."""
    plan = make_plan(MergeSpec(method, keep_ratio=KEEP), vlm.shape)
    pixels, spatial = frame_inputs(vlm, rgb, depth_m)
    tokens = encode(vlm.tower, pixels, plan, spatial if plan.needs_spatial else None)
    return draw_groups(image, tokens.source[0].numpy(), vlm.shape.grid)


def sheet(panels: dict[str, Image.Image]) -> Image.Image:
    """Put panels side by side, each with its name below."""
    width = len(panels) * (PANEL_PX + GAP_PX) - GAP_PX
    paper = Image.new("RGB", (width, PANEL_PX + LABEL_PX), "white")
    pen, font = ImageDraw.Draw(paper), ImageFont.load_default(FONT_PX)
    for number, (name, panel) in enumerate(panels.items()):
        x = number * (PANEL_PX + GAP_PX)
        paper.paste(panel.resize((PANEL_PX, PANEL_PX)), (x, 0))
        pen.text((x + PANEL_PX / 2, PANEL_PX + LABEL_PX / 2), name, fill="black", font=font, anchor="mm")
    return paper


if __name__ == "__main__":
    main()
