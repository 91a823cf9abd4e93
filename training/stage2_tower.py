"""Stage 2: train the tower with dense heads only: first at 256 px, then at the full 384 px.

python -m training.stage2_tower --out runs/stage2 --low-steps 1500 --steps 2200 --until 1800
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from evals.rooms import TRAIN
from training.batches import Batch, Recipe, two_phases
from training.loop import Plan, arguments, train
from training.model import GRID, IMAGE_PX, PATCH_PX, DenseHeads, build_config, build_model, build_tokenizer
from training.tower import dense_loss, normalise, run_tower, start_positions

LOW_PX = 256
HIGH = Recipe(
    IMAGE_PX, GRID, scenes=16, per_scene=0, pixels=True, first_seed=TRAIN.start + 3_000_000, plain=True
)
LOW = replace(HIGH, size=LOW_PX, grid=LOW_PX // PATCH_PX, first_seed=TRAIN.start + 2_000_000)


def main() -> None:
    args = arguments(__doc__, "runs/stage2", steps=2200, rate=1e-3, seed=1)
    args.add_argument("--low-steps", type=int, default=1500, help="steps at the low resolution")
    given = args.parse_args()
    torch.set_num_threads(given.threads)

    tokenizer = build_tokenizer()
    tower = build_model(build_config(tokenizer), given.seed).model.vision_tower
    start_positions(tower)
    heads = DenseHeads()
    parts = nn.ModuleDict({"tower": tower, "heads": heads}).to(given.device)

    def step_loss(batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        batch = batch.to(given.device)
        assert batch.pixels is not None
        with torch.autocast(batch.pixels.device.type, torch.bfloat16):
            hidden = run_tower(tower, normalise(batch.pixels))
        return dense_loss(heads(hidden.float()), batch.symbols)

    batches = two_phases(LOW, HIGH, given.low_steps, tokenizer, given.workers)
    plan = Plan(given.out, given.steps, given.rate, given.until, warmup=200, decay_share=0.35)
    train(plan, parts, batches, step_loss)


if __name__ == "__main__":
    main()
