"""What distinguishes one kind of vision-language model from another: views, reducer, prompt, language model.

A family holds what a checkpoint says of itself, and reads weights from the model it is handed; it writes to
none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tosa import EncoderShape, MergePlan, MergeSpec, Tokens, make_plan
from vlm.adapters import ViTAdapter, adapt
from vlm.adapters.adapter import count_layers
from vlm.families.layout import Grid, Layout, Saving, Visual
from vlm.families.pictures import Pictures
from vlm.families.reading import Reading
from vlm.model import VlmError

PLAIN_TOWERS = ("siglip_vision_model", "clip_vision_model")
BOTH: tuple[Saving, ...] = ("vit", "lm")


class Family(Pictures, Reading):
    """Describe a checkpoint: its views, its tower and reducer, its prompt and its language model.

    Subclasses name what differs. model_class: in transformers. towers: the model types of vision towers that
    run. tower_name: where the model keeps its tower.
    """

    model_class: ClassVar[str]
    towers: ClassVar[tuple[str, ...]] = PLAIN_TOWERS
    tower_name: ClassVar[str] = "vision_tower"

    def __init__(self, config: Any, folder: Path | None = None, tokenizer: Any = None) -> None:
        super().__init__(config, folder, tokenizer)
        self.require_supported()

    def require_supported(self) -> None:
        """Raise VlmError for a tower that no adapter knows, and for features that no tower can give."""
        tower = self.vision.model_type
        if tower not in self.towers:
            message = (
                f"the vision tower is {tower}; {self.config.model_type} runs with {', '.join(self.towers)}"
            )
            raise VlmError("unsupported_tower", message)
        if len(set(self.view_px)) > 1:
            message = (
                f"its views are {self.view_px[0]} x {self.view_px[1]} px, and only square ones are supported"
            )
            raise VlmError("unsupported_model", message)
        if not isinstance(self.feature_layer, int):
            message = "visual features of several layers (a list) are not supported"
            raise VlmError("unsupported_model", message)
        if self.drops_prefix and not self.num_prefix:
            message = f'it drops visual tokens (vision_feature_select_strategy "default") of a {tower}'
            raise VlmError("unsupported_model", message)

    @property
    def feature_layer(self) -> int:
        """Return the index of the hidden state that the reducer gets; -1 is the last."""
        return getattr(self.config, "vision_feature_layer", -1)

    @property
    def drops_prefix(self) -> bool:
        return getattr(self.config, "vision_feature_select_strategy", "full") == "default"

    @property
    def num_prefix(self) -> int:
        """Return the class tokens of the tower."""
        return 1 if self.vision.model_type == "clip_vision_model" else 0

    def require_no_kept_prefix(self) -> None:
        """Raise VlmError where class tokens would stand among the patches of a grid."""
        if self.kept_prefix:
            message = f"the language model of {self.config.model_type} would read class tokens as patches"
            raise VlmError("unsupported_model", message)

    @property
    def kept_prefix(self) -> int:
        """Return how many class tokens the language model reads."""
        return 0 if self.drops_prefix else self.num_prefix

    def read_tokens(self, tokens: Tokens) -> Tensor:
        """Return the tokens that the reducer gets: [B, kept_prefix + N, C]."""
        return without_prefix(tokens) if self.drops_prefix else tokens.x

    @property
    def cell(self) -> Grid:
        """Return how many patches (rows, columns) the reducer joins into one visual token."""
        return (1, 1)

    def shape(self, layout: Layout) -> EncoderShape:
        """Describe the layers that run, for the planner; from the config alone."""
        vision = self.vision
        return EncoderShape(
            num_layers=count_layers(vision.num_hidden_layers, self.feature_layer),
            grid=layout.grid,
            num_prefix=self.num_prefix,
            hidden_size=vision.hidden_size,
            mlp_size=vision.intermediate_size,
            cell=self.cell,
        )

    def tower(self, core: Any) -> Any:
        """Return the module that holds the tower's weights."""
        return getattr(core, self.tower_name)

    def adapter(self, core: Any, layout: Layout) -> ViTAdapter:
        """Name the parts of the tower for `encode`."""
        cell = None if self.cell == (1, 1) else self.cell
        return adapt(self.tower(core), self.feature_layer, layout.pixels, cell)

    def level_layers(self, core: Any) -> tuple[int, ...]:
        """Return the layers whose output the language model reads too."""
        return ()

    def recovers(self, layout: Layout, plan: MergePlan) -> bool:
        """Say whether merged tokens go back to all patches before the reducer."""
        return False

    def patch_rows(self, layout: Layout, source: Tensor) -> Tensor | None:
        """Return the row of `Visual.features` that holds each patch of a single view. source: of tokens [P].

        None for families and views whose features are not one for each token.
        """
        return None

    def follows_patches(self, layout: Layout) -> bool:
        """Say whether `patch_rows` knows the features of this layout."""
        return self.patch_rows(layout, torch.zeros(1, dtype=torch.int64)) is not None

    @property
    def separator_rows(self) -> int:
        """Count the features behind the tokens of a single view that separate it from what follows."""
        return 0

    def saves(self, layout: Layout, plan: MergePlan) -> tuple[Saving, ...]:
        """Say what a plan saves: work in the tower, and tokens of the language model."""
        if plan.tokens_out == plan.tokens_in:
            return ()
        without = self.counts(layout, make_plan(MergeSpec(), plan.shape))
        return BOTH if sum(self.counts(layout, plan)) < sum(without) else ("vit",)

    def counts(self, layout: Layout, plan: MergePlan) -> tuple[int, ...]:
        """Count the visual tokens of every run of them in the prompt, before the tower has run."""
        raise NotImplementedError

    def reduce(
        self,
        core: Any,
        layouts: Sequence[Layout],
        plan: MergePlan,
        tokens: Tokens,
        levels: Sequence[Tensor] = (),
    ) -> list[Visual]:
        """Make visual features of the tokens [views of all layouts, N, C]. levels: of `level_layers`."""
        raise NotImplementedError


def split_views(layouts: Sequence[Layout], rows: Tensor) -> list[Tensor]:
    """Split rows [views of all layouts, ...] into those of each layout."""
    return list(torch.split(rows, [len(layout.views) for layout in layouts]))


def without_prefix(tokens: Tokens) -> Tensor:
    """Return the patch tokens [B, N, C] alone."""
    return tokens.x[:, tokens.num_prefix :] if tokens.num_prefix else tokens.x


def kept_grid(plan: MergePlan) -> Grid | None:
    """Return the grid that the tokens of a plan still have behind the last layer, None if they have none."""
    if plan.grids is not None:
        return plan.grids[-1]
    return plan.shape.grid if plan.tokens_out == plan.tokens_in else None
