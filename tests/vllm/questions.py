"""The questions about the bundled frames, and what the language model reads of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evals.inputs import frame_inputs
from tosa import MergeSpec, Tokens, make_plan
from vlm import Vlm, encode, features, prompt_ids
from vlm.language import embed

FRAMES = sorted(path.parent for path in (Path(__file__).parents[2] / "examples" / "frames").glob("*/rgb.png"))


@dataclass(frozen=True, eq=False)
class Asked:
    """One question: the ids of its prompt, and the visual features [1, M, D] for it."""

    ids: Tensor
    features: Tensor

    def embeds(self, vlm: Vlm) -> Tensor:
        """Return the prompt as a language engine gets it: [T, D]."""
        with torch.inference_mode():
            return embed(vlm, self.ids, self.features)[0].clone()


def asked(vlm: Vlm, spec: MergeSpec) -> list[Asked]:
    """Return every question about every bundled frame."""
    plan = make_plan(spec, vlm.shape)
    return [
        Asked(prompt_ids(vlm, question, [plan.tokens_out]), seen)
        for frame in FRAMES
        for seen in [features(vlm, _seen(vlm, frame, spec))]
        for question in _questions(frame)
    ]


def _seen(vlm: Vlm, frame: Path, spec: MergeSpec) -> Tokens:
    rgb = np.asarray(Image.open(frame / "rgb.png").convert("RGB"))
    depth = (np.asarray(Image.open(frame / "depth.png")) / 1000).astype(np.float32)
    with torch.inference_mode():
        pixels, spatial = frame_inputs(vlm, rgb, depth)
        return encode(vlm.tower, pixels, make_plan(spec, vlm.shape), spatial)


def _questions(frame: Path) -> list[str]:
    return [each["question"] for each in json.loads((frame / "scene.json").read_text())["questions"]]
