"""Vote&Mix: who is voted for goes, softly, and the way back knows where to."""

from dataclasses import replace

import pytest
import torch

from tosa import METHODS, EncoderShape, MergeSpec, MergeStep, PlanError, Tokens, make_plan, recover
from tosa.methods.vomix import VomixOptions, votes
from tosa.recovery import raster_order
from tosa.tokens import take

merge = METHODS["vomix"].merge


def start(x: torch.Tensor, num_prefix: int = 0) -> Tokens:
    return Tokens.start(x, (1, x.shape[1] - num_prefix), num_prefix)


def test_votes_by_hand() -> None:
    similarity = torch.tensor([[[1.0, 0.9, 0.2], [0.9, 1.0, 0.5], [0.2, 0.5, 1.0]]])
    count, best = votes(similarity)
    assert count.tolist() == [[1, 2, 0]]
    assert best[0].tolist() == pytest.approx([0.9, 0.9, 0.5])


@pytest.mark.parametrize("num_prefix", [0, 2])
def test_the_centre_of_a_crowd_is_mixed_into_it(num_prefix: int) -> None:
    """Patch 1 lies between 0 and 2, which vote for it; 3 is far from all."""
    patches = torch.tensor([[0.9, 0.4, 0.0], [1.0, 0.0, 0.0], [0.9, -0.4, 0.0], [0.0, -0.1, 1.0]])[None]
    x = torch.cat([torch.zeros(1, num_prefix, 3), patches], dim=1)
    merged = merge(start(x, num_prefix), x, MergeStep(0, r=1))
    first, second, alone = merged.x[0, num_prefix:]
    torch.testing.assert_close(first, (patches[0, 0] + 0.5 * patches[0, 1]) / 1.5)
    torch.testing.assert_close(second, (patches[0, 2] + 0.5 * patches[0, 1]) / 1.5)
    torch.testing.assert_close(alone, patches[0, 3])
    assert (merged.source - num_prefix).tolist() == [[0, 0, 1, 2]]
    back = recover(merged)[0]
    torch.testing.assert_close(back[1], (first + second) / 2)
    torch.testing.assert_close(back[3], patches[0, 3])


def test_a_low_temperature_mixes_into_one_token() -> None:
    x = torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(0))
    sharp, soft = (merge(start(x), x, MergeStep(0, r=4, options=VomixOptions(heat))) for heat in (0.001, 1.0))
    assert torch.equal(sharp.source, soft.source)
    untouched = [int((one.x[0, :, None] == x[0]).all(-1).any(1).sum()) for one in (sharp, soft)]
    assert untouched[0] > 0 == untouched[1]


def test_the_soft_way_back_follows_tokens_to_other_places() -> None:
    x = torch.randn(2, 17, 8, generator=torch.Generator().manual_seed(2))
    tokens = start(x, 1)
    for layer in range(2):
        tokens = merge(tokens, tokens.x, MergeStep(layer, r=5))
    assert tokens.blend is not None
    order = torch.tensor([0, 6, 3, 1, 5, 2, 4]).expand(2, -1)
    rank = order.argsort(dim=1)
    turned = replace(
        tokens,
        x=take(tokens.x, order),
        source=rank.gather(1, tokens.source),
        blend=replace(tokens.blend, index=rank.gather(1, tokens.blend.index.flatten(1)).view(2, 16, -1)),
    )
    torch.testing.assert_close(recover(turned), recover(tokens))
    torch.testing.assert_close(recover(raster_order(turned)), recover(tokens))


def test_bad_options_are_refused() -> None:
    with pytest.raises(PlanError, match=r"temperature must be a number from 0.001 to 1.0, got 0"):
        make_plan(MergeSpec("vomix", r=2, options={"temperature": 0}), EncoderShape(3, (4, 4)))
