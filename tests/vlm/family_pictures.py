"""Pictures for the tests of families, and prompts as transformers' own processors write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.vlm.families import CASES
from tosa import MergePlan, MergeSpec, PlanError, spatial_tokens
from vlm import Vlm, prompt_ids
from vlm.families import Layout, Spelled, Visual
from vlm.visuals import layouts, plan_views, spell, visual_of

QUESTION = "how many cubes?"
# (height, width) of the pictures of a prompt; a video is one of them all.
ONE_SIZES = {"384x384": (384, 384), "640x480": (480, 640), "1920x1080": (1080, 1920), "100x900": (900, 100)}


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Paint smooth random colours on a picture of (height, width)."""
    colours = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((size[1], size[0]), Image.Resampling.BICUBIC)


def pictures(sizes: Sequence[tuple[int, int]]) -> list[Image.Image]:
    return [picture(size, seed) for seed, size in enumerate(sizes)]


def processed(name: str, processor: Any, images: Sequence[Image.Image], views: str = "auto") -> Any:
    """Run a processor of transformers on one question about these images, or this video."""
    if CASES[name].template is None:
        inputs = processor(text="<image>" * len(images) + QUESTION, images=[images])
        names = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")
        return {name: torch.as_tensor(np.asarray(inputs[name])) for name in names}
    video = views == "video"
    content = [{"type": "video"}] if video else [{"type": "image"}] * len(images)
    turn = {"role": "user", "content": [*content, {"type": "text", "text": QUESTION}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True)
    options: dict[str, Any] = {"add_special_tokens": not text.startswith(processor.tokenizer.bos_token)}
    if video:
        frames = np.stack([np.asarray(image) for image in images])
        return processor(
            text=[text], videos=[[frames]], return_tensors="pt", do_sample_frames=False, **options
        )
    if views == "anyres":
        options["do_pan_and_scan"] = True
    return processor(text=[text], images=[list(images)], return_tensors="pt", **options)


def codes(layout: Layout, plan: MergePlan, seed: int = 0) -> Tensor | None:
    """Return spatial tokens of random depth where the plan needs some: [views, P, S]."""
    if not plan.needs_spatial:
        return None
    made = torch.Generator().manual_seed(seed)
    z = torch.randint(0, layout.grid[0], (len(layout.views), *layout.grid), generator=made)
    return spatial_tokens(z, levels=layout.grid[0])


def read(
    vlm: Vlm, images: Sequence[Image.Image], spec: MergeSpec | None = None, views: Any = "auto"
) -> tuple[Tensor, list[Visual]]:
    """Take one question about images as far as its prompt and what the language model reads of them."""
    spec = spec or MergeSpec()
    laid = layouts(vlm, [(image.height, image.width) for image in images], views)
    plans = [plan_views(vlm, spec, layout) for layout in laid]
    groups = [images] if views == "video" else [[image] for image in images]
    visuals = [
        visual_of(vlm, group, layout, plan, codes(layout, plan))
        for group, layout, plan in zip(groups, laid, plans, strict=True)
    ]
    spelled = [spell(vlm, layout, plan) for layout, plan in zip(laid, plans, strict=True)]
    return ask_for(vlm, spelled), visuals


def ask_for(vlm: Vlm, spelled: Sequence[Spelled]) -> Tensor:
    """Return the prompt of the question about what is spelled."""
    return prompt_ids(vlm, QUESTION, spelled)


def smallest(vlm: Vlm, layout: Layout, method: str, keep_ratio: float) -> MergeSpec:
    """Return a spec of a method that keeps so much, or the least that it can."""
    spec = MergeSpec(method, keep_ratio=keep_ratio)
    try:
        plan_views(vlm, spec, layout)
    except PlanError as error:
        return MergeSpec(method, keep_ratio=error.limit)
    return spec
