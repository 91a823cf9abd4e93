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

<<<<<<< .merge_file_A84nAr
    # Views.

    @cached_property
    def processor(self) -> Any:
        """Return the image processor of transformers, loaded when it is first needed."""
        from transformers import AutoImageProcessor

        assert self.folder is not None, "a family without a folder has no image processor"
        return AutoImageProcessor.from_pretrained(self.folder, trust_remote_code=False)

    @cached_property
    def processing(self) -> str:
        """Name everything that the image processor of the checkpoint says, for keys of caches."""
        return json.dumps(self.processor.to_dict(), sort_keys=True, default=str)

    @cached_property
    def video_processor(self) -> Any:
        """Return the video processor of transformers, loaded when it is first needed."""
        from transformers import AutoVideoProcessor

        assert self.folder is not None, "a family without a folder has no video processor"
        return AutoVideoProcessor.from_pretrained(self.folder, trust_remote_code=False)

    def layouts(self, sizes: Sequence[Size], views: Views = "auto") -> tuple[Layout, ...]:
        """Lay out the pictures of one prompt by their (height, width); a video is one layout of all of them.

        "auto" is what the checkpoint's own processor does. Raises VlmError (unsupported_views), and
        unsupported_image for a picture or video that these views cannot be made of.
        """
        if views != "auto" and views not in self.kinds:
            known = tuple(each for each in VIEWS if each == "auto" or each in self.kinds)
            message = f"{self.config.model_type} has no views {views}; it has {', '.join(known)}."
            raise VlmError("unsupported_views", message, field="views", choices=known)
        for size in sizes:
            if max(size) > MOST_ASPECT * min(size) and not self.squeezes(views):
                raise _too_narrow(size)
        if views == "video":
            _require_one_size(sizes)
            return (self.video_layout(sizes),) if sizes else ()
        return tuple(self.layout(size, views, len(sizes)) for size in sizes)

    def squeezes(self, views: Views) -> bool:
        """Say whether a picture of any proportions becomes a view of the tower's own."""
        return views in ("single", "video")

    def layout(self, size: Size, views: Views, num_images: int) -> Layout:
        """Lay out one picture of so many."""
        return self.whole(size)

    def video_layout(self, sizes: Sequence[Size]) -> Layout:
        """Lay out the frames of one video."""
        raise NotImplementedError

    def whole(self, size: Size) -> Layout:
        """Return the layout of one view of the whole picture."""
        return Layout("single", size, self.grid, self.view_px)

    @property
    def view_px(self) -> Size:
        """Return (height, width) of a view in px, where it does not depend on the picture."""
        side = self.vision.image_size
        return (side, side) if isinstance(side, int) else (side[0], side[1])

    @property
    def grid(self) -> Grid:
        """Return the patches of a view, where they do not depend on the picture."""
        patch = self.vision.patch_size
        rows, columns = (patch, patch) if isinstance(patch, int) else patch
        return self.view_px[0] // rows, self.view_px[1] // columns

    @cached_property
    def settings(self) -> ImageSettings:
        """Return how the square view of a whole picture is made."""
        return self._settings_of(self.processor)

    @cached_property
    def video_settings(self) -> ImageSettings:
        """Return how the square view of a frame of a video is made."""
        return self._settings_of(self.video_processor)

    def _settings_of(self, processor: Any) -> ImageSettings:
        scale = processor.rescale_factor if processor.do_rescale else 1.0
        return ImageSettings(
            size_px=self.view_px[0],
            mean=_three(processor.image_mean) if processor.do_normalize else three(0.0),
            std=_three(processor.image_std) if processor.do_normalize else three(1.0),
            rescale=float(scale),
            resample=int(processor.resample),
        )

    def pixels(self, images: Sequence[Image.Image], layout: Layout) -> Tensor:
        """Return the inputs of the tower for one picture or the frames of one video: [views, ...]."""
        return square_views(self.settings, images)

    def _processed(self, image: Image.Image, **options: Any) -> Tensor:
        """Run the image processor on one picture; return its views [views, 3, H, W]."""
        values = self.processor(images=[image], return_tensors="pt", **options)["pixel_values"]
        return values if values.ndim == 4 else values.flatten(0, 1)

    # The tower.

=======
>>>>>>> .merge_file_tQI8vW
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


<<<<<<< .merge_file_A84nAr
def _require_one_size(sizes: Sequence[Size]) -> None:
    """Raise VlmError for frames of several sizes: a video has one."""
    different = list(dict.fromkeys(f"{width} x {height}" for height, width in sizes))
    if len(different) > 1:
        message = f"the frames of a video have one size; these have {', '.join(different[:3])} px."
        raise VlmError("unsupported_views", message, field="views")


def _too_narrow(size: Size) -> VlmError:
    message = (
        f"an image of {size[1]} x {size[0]} px is more than {MOST_ASPECT} times as long as wide, which these "
        "views cannot show: crop it, or ask for views single where the model has them."
    )
    return VlmError("unsupported_image", message, field="image", limit=MOST_ASPECT)


def _three(value: Any) -> tuple[float, float, float]:
    return three(value if isinstance(value, int | float) else list(value))


=======
>>>>>>> .merge_file_tQI8vW
def kept_grid(plan: MergePlan) -> Grid | None:
    """Return the grid that the tokens of a plan still have behind the last layer, None if they have none."""
    if plan.grids is not None:
        return plan.grids[-1]
    return plan.shape.grid if plan.tokens_out == plan.tokens_in else None
