"""What distinguishes one kind of vision-language model from another: views, reducer, prompt, language model.

A family holds what a checkpoint says of itself, and reads weights from the model it is handed; it writes to
none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from tosa import EncoderShape, MergePlan, MergeSpec, Tokens, make_plan
from vlm.adapters import ViTAdapter, adapt
from vlm.adapters.adapter import count_layers
from vlm.checkpoint_files import three
from vlm.families.layout import VIEWS, Grid, Layout, Saving, Size, Spelled, Views, Visual
from vlm.model import ImageSettings, VlmError
from vlm.preprocess import square_views

PLAIN_TOWERS = ("siglip_vision_model", "clip_vision_model")
MOST_ASPECT = 100
"""Narrower pictures, which processors cannot resize, are only seen as one square."""
BOTH: tuple[Saving, ...] = ("vit", "lm")


class Family:
    """Describe a checkpoint whose language model reads one feature for each visual token.

    Subclasses name what differs. model_class: in transformers. kinds: the views that can be asked for, beside
    "auto". towers: the model types of vision towers that run. first_position: of a prompt. tower_name: where
    the model keeps its tower.
    """

    model_class: ClassVar[str]
    kinds: ClassVar[tuple[Views, ...]] = ("single",)
    towers: ClassVar[tuple[str, ...]] = PLAIN_TOWERS
    first_position: ClassVar[int] = 0
    tower_name: ClassVar[str] = "vision_tower"
    template: ClassVar[str | None] = None  # of a checkpoint that has none
    has_places: ClassVar[bool] = False  # positions are time, row and column; else they just count
    adds_special: ClassVar[bool] = True  # the tokenizer puts its own first token in front of a prompt

    def __init__(self, config: Any, folder: Path | None = None, tokenizer: Any = None) -> None:
        self.config, self.folder, self.tokenizer = config, folder, tokenizer
        self.require_supported()

    # What the checkpoint must be like.

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
    def vision(self) -> Any:
        return self.config.vision_config

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

    # From the tower to the language model.

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

    # The prompt.

    @property
    def image_token_id(self) -> int:
        return self.config.image_token_id

    @property
    def visual_token_ids(self) -> tuple[int, ...]:
        """Return the tokens in whose place the language model reads features."""
        video = getattr(self.config, "video_token_id", None) if "video" in self.kinds else None
        return (
            (self.image_token_id,) if video in (None, self.image_token_id) else (self.image_token_id, video)
        )

    @cached_property
    def placeholders(self) -> Mapping[str, str]:
        """Return what a chat template writes for an image, and for a video, by modality."""
        names = {"image": self.image_token_id}
        if "video" in self.kinds and getattr(self.config, "video_token_id", None) is not None:
            names["video"] = self.config.video_token_id
        return {kind: str(self.tokenizer.convert_ids_to_tokens(id_)) for kind, id_ in names.items()}

    def visual_token(self, modality: str) -> str:
        """Return the token in whose place features are read, as text."""
        return self.placeholders.get(modality, self.placeholders["image"])

    def spell(self, layout: Layout, counts: Sequence[int]) -> Spelled:
        """Write what the placeholder of a picture or video becomes. counts: as `counts` returns them."""
        return Spelled(self.visual_token(layout.modality), tuple(counts), layout.modality)

    # The language model.

    def decoder(self, core: Any) -> Any:
        """Return the module that takes embeddings and makes its own masks."""
        return core.language_model

    def logits(self, model: Any, hidden: Tensor) -> Tensor:
        """Return the logits [B, vocabulary] that follow hidden states [B, D]."""
        return model.lm_head(hidden)

    def positions(
        self, ids: Sequence[int], visuals: Sequence[Visual], device: torch.device
    ) -> tuple[Tensor, int]:
        """Return three-dimensional positions [3, T] of a prompt, and the next one, where `has_places`."""
        raise NotImplementedError

    def prompt_inputs(self, ids: Tensor, visuals: Sequence[Visual]) -> dict[str, Any]:
        """Return what else the language model needs for prompts [B, T], -1 where they are padded."""
        return {}

    def is_visual(self, ids: Tensor) -> Tensor:
        """Say where ids are those of visual tokens."""
        first, *others = self.visual_token_ids
        found = ids == first
        for other in others:
            found = found | (ids == other)
        return found


def split_views(layouts: Sequence[Layout], rows: Tensor) -> list[Tensor]:
    """Split rows [views of all layouts, ...] into those of each layout."""
    return list(torch.split(rows, [len(layout.views) for layout in layouts]))


def without_prefix(tokens: Tokens) -> Tensor:
    """Return the patch tokens [B, N, C] alone."""
    return tokens.x[:, tokens.num_prefix :] if tokens.num_prefix else tokens.x


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


def kept_grid(plan: MergePlan) -> Grid | None:
    """Return the grid that the tokens of a plan still have behind the last layer, None if they have none."""
    if plan.grids is not None:
        return plan.grids[-1]
    return plan.shape.grid if plan.tokens_out == plan.tokens_in else None
