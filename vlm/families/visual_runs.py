"""A prompt as engines elsewhere read it that know pictures: ids, and every run of visual tokens as a grid.

Such an engine derives positions in space from the grid, so that a run has to hold every cell of it, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from vlm.families.layout import Grid, Visual


@dataclass(frozen=True, eq=False)
class VisualRun:
    """Hold one run of visual tokens.

    start: its place in the prompt. features: [cells, D], those of deeper levels beside them. grid: (times,
    rows, columns) in patches. seconds: from one time to the next, where there are several.
    """

    start: int
    features: Tensor
    grid: tuple[int, int, int]
    seconds: float = 0.0


@dataclass(frozen=True)
class Steps:
    """Say how time is counted: seconds from one view of a video to the next, and positions in a second."""

    seconds: float = 0.0
    per_s: float = 0.0

    def positions(self, times: int) -> list[int]:
        """Return the position of every view, from that of the first."""
        return [int(at * (self.seconds * self.per_s)) for at in range(times)]

    def end(self, times: int, grid: Grid) -> int:
        """Return where text goes on behind a grid, from its begin, as engines count that derive positions."""
        return max(self.positions(times)[-1], grid[0] - 1, grid[1] - 1) + 1


def visual_runs(
    ids: Sequence[int], visual_ids: Sequence[int], visuals: Sequence[Visual], cell: Grid, steps: Steps
) -> tuple[VisualRun, ...]:
    """Cut the visual tokens of a prompt into its runs. cell: patches of a token.

    Raises ValueError for tokens that are not the whole of a grid, or behind which text would stand elsewhere.
    """
    features, places, spans = _joined(visuals)
    runs: list[VisualRun] = []
    start = taken = 0
    for visual, group in groupby(ids, key=lambda id_: id_ in visual_ids):
        length = len(list(group))
        if visual:
            own = slice(taken, taken + length)
            times, rows, columns = _grid(places[:, own], spans[own], steps)
            grid = times, rows * cell[0], columns * cell[1]
            runs.append(VisualRun(start, features[own], grid, steps.seconds))
            taken += length
        start += length
    if taken != len(features):
        raise ValueError(f"the prompt has {taken} image placeholders for {len(features)} visual tokens")
    return tuple(runs)


def _joined(visuals: Sequence[Visual]) -> tuple[Tensor, Tensor, Tensor]:
    """Return features [M, D], places [3, M] and spans [M] of all visuals."""
    if not visuals:
        return torch.empty(0, 0), torch.empty(3, 0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    places = [visual.places for visual in visuals if visual.places is not None]
    if len(places) != len(visuals):
        raise ValueError("every visual token of this model needs a place")
    features = torch.cat([torch.cat((visual.features, *visual.deepstack), dim=1) for visual in visuals])
    spans = torch.tensor([visual.span for visual in visuals for _ in visual.features])
    return features.cpu(), torch.cat(places, dim=1).cpu(), spans


def _grid(places: Tensor, spans: Tensor, steps: Steps) -> tuple[int, int, int]:
    """Return the times, rows and columns of tokens that are all cells of a grid. Raises ValueError."""
    rows, columns = (int(axis.max()) + 1 for axis in places[1:])
    times = places.shape[1] // (rows * columns)
    moments = torch.tensor(steps.positions(times), dtype=torch.int64)
    axes = moments, torch.arange(rows), torch.arange(columns)
    if not torch.equal(places, torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)):
        raise ValueError("the visual tokens are not the whole of a grid")
    if bool((spans != steps.end(times, (rows, columns))).any()):
        raise ValueError("text behind the visual tokens would stand elsewhere")
    return times, rows, columns
