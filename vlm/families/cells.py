"""Families whose reducer joins the patches of a cell into one visual token: pixel shuffle, merger, average.

Merging keeps cells whole, so the reducer sees as many slots as it was trained on, and the language model
reads one token for each cell that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from tosa import MergePlan, Tokens, cells_of
from vlm.families.family import Family, split_views
from vlm.families.layout import Layout, Visual


class CellFamily(Family):
    """Describe a reducer that works cell by cell. norm_name: the tower's norm in front of it."""

    norm_name: ClassVar[str | None] = None

    def counts(self, layout: Layout, plan: MergePlan) -> tuple[int, ...]:
        return (plan.cells_out,) * len(layout.views)

    def reduce(
        self,
        core: Any,
        layouts: Sequence[Layout],
        plan: MergePlan,
        tokens: Tokens,
        levels: Sequence[Tensor] = (),
    ) -> list[Visual]:
        if self.norm_name is not None:
            tokens = replace(tokens, x=getattr(self.tower(core), self.norm_name)(tokens.x))
        features = self.reduce_cells(core, cells_of(tokens))
        return [Visual(own.flatten(0, 1)) for own in split_views(layouts, features)]

    def reduce_cells(self, core: Any, cells: Tensor) -> Tensor:
        """Make one feature of each cell: [views, cells, slots, C] -> [views, cells, D]."""
        raise NotImplementedError
