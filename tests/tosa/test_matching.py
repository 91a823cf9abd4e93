"""Who merges with whom: ties, limits, protection, precision."""

import pytest
import torch
import torch.nn.functional as F

from tosa import METHODS, MergeStep, Tokens, bipartite, cosine, spatial_tokens


def test_the_best_pairs_merge_and_order_is_unmerged_then_odd() -> None:
    # Tokens 0 2 4 (rows) against 1 3 5 (columns).
    score = torch.tensor([[[0.1, 0.2, 0.3], [0.9, 0.0, 0.0], [0.5, 0.8, 0.0]]])
    assignment = bipartite(score, r=1, num_prefix=0)
    assert assignment.num_out == 5
    # Token 2 joins token 1; unmerged by falling score: 4 (0.8), 0 (0.3).
    assert assignment.dest.tolist() == [[1, 2, 2, 3, 0, 4]]


def test_with_a_prefix_unmerged_tokens_keep_their_order() -> None:
    # Prefix 0; even patches 2 4 6 (rows) against odd 1 3 5 (columns).
    score = torch.tensor([[[0.1, 0.2, 0.3], [0.9, 0.0, 0.0], [0.5, 0.8, 0.0]]])
    assert bipartite(score, r=1, num_prefix=1).dest.tolist() == [[0, 3, 1, 4, 3, 5, 2]]


def test_r_stops_at_half_of_the_patches() -> None:
    assert bipartite(torch.rand(1, 3, 2), r=50, num_prefix=0).num_out == 3


def test_equal_scores_go_by_the_tie_break_then_by_index() -> None:
    score = torch.full((1, 3, 3), 0.5)
    by_index = bipartite(score, r=2, num_prefix=0)
    assert by_index.dest.tolist() == [[1, 1, 1, 2, 0, 3]]  # tokens 0 and 2 both join token 1
    tie_break = torch.tensor([[[0.0, 0.1, 0.0], [0.0, 0.0, 0.2], [0.3, 0.0, 0.3]]])
    by_tie = bipartite(score, r=2, num_prefix=0, tie_break=tie_break)
    assert by_tie.dest.tolist() == [[0, 1, 3, 2, 1, 3]]  # 4 joins 1 (first of equals), 2 joins 5, 0 stays


def test_the_tie_break_never_beats_the_score() -> None:
    score, tie_break = torch.rand(2, 2, 20, 20, generator=torch.Generator().manual_seed(0))
    with_tie = bipartite(score, r=7, num_prefix=0, tie_break=tie_break)
    assert torch.equal(with_tie.dest, bipartite(score, r=7, num_prefix=0).dest)


@pytest.mark.parametrize("num_prefix", [0, 1, 2, 5])
@pytest.mark.parametrize("patches", [12, 13])
def test_every_patch_has_a_side_and_no_prefix_has(num_prefix: int, patches: int) -> None:
    metric = torch.randn(1, num_prefix + patches, 4)
    score = cosine(metric, num_prefix)
    assert sum(score.shape[1:]) == patches
    assert min(score.shape[1:]) == patches // 2
    dest = bipartite(score, patches, num_prefix).dest
    assert dest[0, :num_prefix].tolist() == list(range(num_prefix))
    assert dest[0, num_prefix:].min() == num_prefix


def test_similarity_is_float32_even_under_autocast() -> None:
    metric = torch.randn(1, 40, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = cosine(metric, 0)
        unit = F.normalize(metric, dim=-1)
        careless = unit[:, 0::2] @ unit[:, 1::2].mT
    assert inside.dtype is torch.float32
    assert torch.equal(inside, cosine(metric, 0))
    assert careless.dtype is torch.bfloat16


def test_without_a_visual_term_visual_similarity_decides_among_equal_distances() -> None:
    """At alpha 0 whole rows of neighbours are equally far apart; the choice must not be rounding noise.

    The same scene in float64 rounds differently, and has to choose the same tokens.
    """
    generator = torch.Generator().manual_seed(0)
    metric = torch.randn(1, 24 * 24, 16, generator=generator)
    z = (torch.arange(24)[:, None] // 3).expand(1, 24, 24)
    spatial = spatial_tokens(z)
    chosen = METHODS["tosa"].merge(start(spatial), metric, MergeStep(0, r=60, alpha=0.0)).source
    unit = F.normalize(spatial.double(), dim=-1)
    exact = (unit[:, 0::2] @ unit[:, 1::2].mT * 1e4).round()
    expected = bipartite(exact, 60, 0, tie_break=cosine(metric, 0)).dest
    assert torch.equal(chosen, expected)
    noisy = bipartite(cosine(spatial, 0), 60, 0, tie_break=cosine(metric, 0)).dest
    assert not torch.equal(noisy, expected)


def test_tosa_without_spatial_tokens_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="spatial=spatial_tokens"):
        METHODS["tosa"].merge(start(None), torch.randn(1, 576, 4), MergeStep(0, r=1))


def start(spatial: torch.Tensor | None) -> Tokens:
    return Tokens.start(torch.zeros(1, 576, 2), grid=(24, 24), spatial=spatial)
