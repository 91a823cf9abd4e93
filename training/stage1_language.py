"""Stage 1: train the language model to answer from symbols, without a tower or images.

python -m training.stage1_language --out runs/stage1 --steps 2400
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evals.rooms import TRAIN
from training.batches import Batch, Recipe, blur, loader, thin
from training.language import question_loss
from training.loop import Plan, arguments, train
from training.model import GRID, SymbolCode, build_config, build_model, build_tokenizer

SMALL_PX = 96  # symbols need ids and depth only: a quarter of the resolution is enough, and fast
RECIPE = Recipe(SMALL_PX, GRID, scenes=16, per_scene=16, pixels=False, first_seed=TRAIN.start, plain=True)


def main() -> None:
    given = arguments(__doc__, "runs/stage1", steps=2400, rate=1e-3, seed=0).parse_args()
    torch.set_num_threads(given.threads)

    tokenizer = build_tokenizer()
    model = build_model(build_config(tokenizer), given.seed)
    code = SymbolCode()
    core = model.model
    newline = nn.ParameterDict({"image_newline": core.image_newline})
    parts = nn.ModuleDict({"language": core.language_model, "newline": newline, "code": code}).to(
        given.device
    )

    def step_loss(batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(given.seed * 1_000_003 + step)
        assert batch.packed is not None
        keep = _keep(step, generator, batch.symbols.shape[1])
        symbols = blur(thin(batch.symbols, keep, generator), generator).to(given.device)
        with torch.autocast(symbols.device.type, torch.bfloat16):
            loss, right = question_loss(model, code(symbols), batch.packed.to(given.device))
        return loss, {"right": right.item()}

    plan = Plan(given.out, given.steps, given.rate, given.until)
    train(plan, parts, lambda steps: loader(RECIPE, tokenizer, steps, given.workers), step_loss)


def _keep(step: int, generator: torch.Generator, patches: int) -> int:
    """Number of visual tokens in this step: sometimes all, otherwise as few as after merging."""
    if step % 25 == 24:
        return patches
    return int(torch.randint(48, 200, (), generator=generator))


if __name__ == "__main__":
    main()
