"""What each method does, against computations by hand or by brute force."""

from __future__ import annotations

import torch

from tosa.frames.alike import best_partners, merge_alike
from tosa.frames.cover import cover, farthest, voxel_of
from tosa.frames.plain import diverse, still
from tosa.frames.voxel import grouped_means, voxel_groups

LINE = torch.tensor([[x, 0.0, 0.0] for x in (0.0, 0.01, 1.0, 1.01, 5.0)], dtype=torch.float64)


def cloud(number: int = 200, seed: int = 0) -> torch.Tensor:
    return torch.rand(number, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 4


def radius(points: torch.Tensor, kept: torch.Tensor) -> float:
    return float(torch.cdist(points, points[kept]).min(dim=1).values.max())


def test_farthest_points_by_hand() -> None:
    assert farthest(LINE, torch.tensor([0]), 3).tolist() == [0, 4, 3]
    assert farthest(LINE, torch.tensor([0]), 5).tolist() == [0, 4, 3, 2, 1]


def test_cover_keeps_every_place_near_a_kept_token() -> None:
    points = cloud(600)
    kept = cover(points, 60)
    assert len(kept.unique()) == 60
    by_chance = torch.randperm(600, generator=torch.Generator().manual_seed(1))[:60]
    assert radius(points, kept) < 0.8 * radius(points, by_chance)


def test_cover_of_points_in_one_place_keeps_the_first() -> None:
    assert cover(torch.zeros(5, 3, dtype=torch.float64), 3).tolist() == [0, 1, 2]


def test_voxels_are_cells_about_the_origin() -> None:
    points = torch.tensor([[-0.1, 0, 0], [0.1, 0, 0], [0.19, 0, 0], [0.21, 0, 0]], dtype=torch.float64)
    assert voxel_of(points, 0.2).tolist() == [0, 1, 1, 2]


def test_best_partners_are_those_of_brute_force() -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(150, 8, generator=generator)
    cell = torch.randint(0, 12, (150,), generator=generator)
    cell[:7] = torch.arange(100, 107)  # alone
    _, cell = cell.unique(return_inverse=True)
    best, cosine = best_partners(features, cell)
    alike = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=2)
    alike[(cell[:, None] != cell) | torch.eye(150).bool()] = -2
    value, at = alike.max(dim=1)
    alone = value == -2
    assert alone.sum() >= 7 and (best[alone] == -1).all()
    assert torch.equal(best[~alone], at[~alone]) and torch.allclose(cosine[~alone], value[~alone], atol=1e-6)


def test_alike_merges_near_and_alike_tokens_and_no_others() -> None:
    features = torch.eye(4)[[0, 0, 1, 2, 0]]
    groups = merge_alike(LINE, features, torch.ones(5), 1, 0.9, average=True)
    assert groups.dest.tolist() == [0, 0, 2, 3, 4]  # the last one is alike, and far
    assert merge_alike(LINE, features, torch.ones(5), 1, 0.9, average=True).leaders.tolist() == [0, 2, 3, 4]
    assert merge_alike(LINE, features, torch.ones(5), 5, 0.9, average=True).leaders.tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_alike_weighs_by_size_or_keeps_the_first() -> None:
    points = torch.zeros(2, 3, dtype=torch.float64)
    features, size = torch.tensor([[1.0, 0.0], [1.0, 0.1]]), torch.tensor([3.0, 1.0])
    mean = merge_alike(points, features, size, 1, 0.9, average=True)
    assert torch.allclose(mean.features[0], torch.tensor([1.0, 0.025]))
    first = merge_alike(points, features, size, 1, 0.9, average=False)
    assert torch.equal(first.features[0], features[0])


def test_alike_stops_at_the_budget() -> None:
    features = torch.ones(64, 4)
    for budget in (1, 5, 31, 63):
        groups = merge_alike(cloud(64) / 400, features, torch.ones(64), budget, 0.9, average=True)
        assert len(groups.leaders) == budget


def test_voxel_groups_are_means_of_cells_and_exactly_the_budget() -> None:
    group = voxel_groups(LINE, 3)
    assert group[0] == group[1] and group[2] == group[3] and int(group.max()) == 2
    means = grouped_means(
        torch.tensor([[0.0], [4.0], [1.0], [3.0], [7.0]]), torch.tensor([3.0, 1, 1, 1, 1]), group
    )
    assert sorted(means.flatten().tolist()) == [1.0, 2.0, 7.0]
    for budget in (1, 2, 7, 50, 199):
        group = voxel_groups(cloud(), budget)
        assert len(group.unique()) == budget == int(group.max()) + 1


def test_diverse_takes_unlike_tokens_first() -> None:
    features = torch.tensor([[1.0, 0, 0], [1, 0.01, 0], [0, 1, 0], [0, 1, 0.01], [0, 0, 1]])
    assert 4 in diverse(features, 1)
    three = diverse(features, 3).tolist()
    assert len(three) == 3 and 4 in three and len({0, 1} & set(three)) == 1
    assert diverse(features, 9).tolist() == [0, 1, 2, 3, 4]


def test_still_keeps_what_changed_most_and_the_first_of_equals() -> None:
    change = torch.tensor([torch.inf, torch.inf, 0.1, 0.5, 0.1])
    assert still(change, 3).tolist() == [0, 1, 3]
    assert still(change, 4).tolist() == [0, 1, 2, 3]
