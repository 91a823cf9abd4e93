"""Stage 3: align the tower with the language model, then train both on questions, often with merging.

python -m training.stage3_joint --language runs/stage1 --tower runs/stage2 --out runs/stage3
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration

from evals.rooms import TRAIN
from tosa import MergePlan, MergeSpec, Tokens, make_plan, spatial_tokens
from training.batches import Batch, Recipe, two_phases
from training.language import question_loss
from training.loop import Plan, arguments, saved, train
from training.model import GRID, IMAGE_PX, DenseHeads, SymbolCode, build_config, build_model, build_tokenizer
from training.symbols import ANCHOR, THING
from training.tower import dense_loss, normalise
from vlm.families import family_of
from vlm.vision import encode

ALIGN = Recipe(
    IMAGE_PX, GRID, scenes=16, per_scene=0, pixels=True, first_seed=TRAIN.start + 4_000_000, plain=True
)
JOINT = replace(ALIGN, per_scene=16, first_seed=TRAIN.start + 5_000_000)
KEEP_RATIOS = (0.5, 0.35, 0.25, 0.25, 0.15, 0.1)
PLAIN_SHARE = 0.35  # of the joint steps run without merging


@dataclass(frozen=True)
class Parts:
    """All modules that stage 3 trains."""

    model: LlavaOnevisionForConditionalGeneration
    code: SymbolCode
    heads: DenseHeads

    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"model": self.model, "code": self.code, "heads": self.heads})


def main() -> None:
    args = arguments(__doc__, "runs/stage3", steps=2000, rate=5e-4, seed=2)
    args.add_argument("--language", type=Path, default=Path("runs/stage1"))
    args.add_argument("--tower", type=Path, default=Path("runs/stage2"))
    args.add_argument("--align-steps", type=int, default=150, help="steps before the first question")
    args.add_argument("--plain-share", type=float, default=PLAIN_SHARE, help="of the steps, without merging")
    given = args.parse_args()
    torch.set_num_threads(given.threads)

    tokenizer = build_tokenizer()
    parts = _assemble(build_model(build_config(tokenizer), given.seed), given.language, given.tower)
    modules = parts.modules().to(given.device)
    family = family_of(parts.model.config)
    shape = family.shape(family.whole(family.view_px))

    def step_loss(batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        draw = random.Random(given.seed * 1_000_003 + step)
        spec = MergeSpec() if step < given.align_steps else _draw_spec(draw, given.plain_share)
        return joint_loss(parts, batch.to(given.device), make_plan(spec, shape))

    batches = two_phases(ALIGN, JOINT, given.align_steps, tokenizer, given.workers)
    plan = Plan(given.out, given.steps, given.rate, given.until, save_every=100)
    train(plan, modules, batches, step_loss)


def joint_loss(parts: Parts, batch: Batch, plan: MergePlan) -> tuple[Tensor, dict[str, float]]:
    """Loss of alignment, of the dense heads (unmerged steps only) and of any questions."""
    assert batch.pixels is not None and batch.z is not None
    core, merged = parts.model.model, plan.method != "none"
    with torch.autocast(batch.pixels.device.type, torch.bfloat16):
        tokens = encode(core.vision_tower, normalise(batch.pixels), plan, spatial_tokens(batch.z))
        visual = core.multi_modal_projector(tokens.x)
    align = _align_loss(parts.code, visual, _represented(batch.symbols, tokens))
    loss, measures = 2 * align, {"align_merged" if merged else "align": align.item()}
    if not merged:
        dense, seen = dense_loss(parts.heads(tokens.x.float()), batch.symbols)
        loss = loss + 0.25 * dense
        measures["anchor_f1"] = seen["anchor_f1"]
    if batch.packed is not None:
        with torch.autocast(batch.pixels.device.type, torch.bfloat16):
            answers, right = question_loss(parts.model, visual, batch.packed)
        loss = loss + answers
        measures["right_merged" if merged else "right"] = right.item()
    return loss, measures


def _align_loss(code: SymbolCode, visual: Tensor, symbols: Tensor) -> Tensor:
    """Squared distance of the projector's output to the code of the symbols, mostly on things."""
    wanted = code(symbols).detach()
    weight = 0.05 + symbols[..., THING].squeeze(-1)
    distance = F.mse_loss(visual.float(), wanted, reduction="none").mean(-1)
    return (distance * weight).sum() / weight.sum()


def _represented(symbols: Tensor, tokens: Tokens) -> Tensor:
    """Symbols [B, N, WIDTH] of each token's best patch: an anchor, else one of a thing, else the first."""
    patches = symbols.shape[1]
    rank = 2 * (symbols[..., ANCHOR] > 0) + (symbols[..., THING] > 0)
    key = rank.squeeze(-1) * patches + torch.arange(patches - 1, -1, -1, device=symbols.device)
    best = torch.zeros_like(tokens.size, dtype=torch.int64).scatter_reduce(1, tokens.source, key, "amax")
    patch = patches - 1 - best % patches
    return symbols.gather(1, patch.unsqueeze(-1).expand(-1, -1, symbols.shape[-1]))


def _draw_spec(draw: random.Random, plain_share: float) -> MergeSpec:
    if draw.random() < plain_share:
        return MergeSpec()
    return MergeSpec(method=draw.choice(("tome", "tosa", "tosa")), keep_ratio=draw.choice(KEEP_RATIOS))


def _assemble(model: LlavaOnevisionForConditionalGeneration, language: Path, tower: Path) -> Parts:
    parts = Parts(model, SymbolCode(), DenseHeads())
    first = saved(language)["parts"]
    second = saved(tower)["parts"]
    core = model.model
    core.language_model.load_state_dict(_part(first, "language."))
    core.image_newline.data.copy_(first["newline.image_newline"])
    parts.code.load_state_dict(_part(first, "code."))
    core.vision_tower.load_state_dict(_part(second, "tower."))
    parts.heads.load_state_dict(_part(second, "heads."))
    return parts


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


if __name__ == "__main__":
    main()
