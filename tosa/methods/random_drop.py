"""Random dropping: the baseline that shows the value of choosing tokens.

Draws by hashing, not from a generator: there is no state, and a request can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tosa.matching import keep_only
from tosa.methods.method import MergeMethod
from tosa.methods.options import option, options_of, require_integer
from tosa.reduction import drop
from tosa.sorting import argsort
from tosa.spec import MergeStep
from tosa.tokens import Tokens

_WORD = 2**32 - 1


@dataclass(frozen=True)
class RandomOptions:
    """Settings of random dropping."""

    seed: int = option(0, "which draw, from 0 to 2^32 - 1.")

    def __post_init__(self) -> None:
        require_integer("seed", self.seed, 0, _WORD)


def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Drop step.r patch tokens, at most half, drawn by (seed, layer, token index); the others stay in order.

    Every image of a batch loses the same tokens; metric is ignored.
    """
    options = options_of(step, RandomOptions)
    batch, n = tokens.size.shape
    patches = n - tokens.num_prefix
    drawn = argsort(_draw(options.seed, step.layer, patches, tokens.x.device))
    r = min(step.r, patches // 2)
    gone, kept = drawn[:r], drawn[r:].sort().values
    kept, gone = ((tokens.num_prefix + index).expand(batch, -1) for index in (kept, gone))
    return drop(tokens, keep_only(kept, gone, tokens.num_prefix))


def _draw(seed: int, layer: int, count: int, device: torch.device) -> Tensor:
    """Hash (seed, layer, index) for every index below count -> [count] int64 in 0..2^32 - 1."""
    index = torch.arange(count, device=device)
    return _mix(_mix(_mix(index + 1) ^ seed) ^ layer)


def _mix(word: Tensor) -> Tensor:
    """Scramble 32-bit words held in int64 (xor-shift and multiply; nothing overflows 63 bits)."""
    for _ in range(2):
        word = ((word ^ (word >> 16)) * 0x45D9F3B) & _WORD
    return word ^ (word >> 16)


# At most half, although a draw could remove more: so the counts are those of the methods it is compared with.
RANDOM = MergeMethod(
    name="random",
    title="Random dropping",
    paper=None,
    site="before_mlp",
    merge=merge,
    options=RandomOptions,
)
