"""What each depth estimation class of transformers needs, and what its output means.

Read from the library's code and from papers, because no config says which way values grow, and in what unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from depth.estimate import Kind

FARTHEST_M = 1e4  # Depth Pro's own bounds of 1 / inverse depth, in metres
NEAREST_M = 1e-4


@dataclass(frozen=True)
class Family:
    """Describe one `model_type`; the functions take the model's config.

    `kind`: what the values are. `size_px(config, wanted)`: side of the square input it takes, nearest to
    `wanted`. `one_by_one`: whether images of one batch would disturb each other or not fit. `read`: from the
    library's output to [B, h, w]. `pads`: published with reflected borders, which are cropped again.
    `normalises`: what the processor does where its file does not say.
    """

    kind: Callable[[Any], Kind]
    size_px: Callable[[Any, int], int]
    one_by_one: Callable[[Any], bool] = lambda config: False
    read: Callable[[Any], Tensor] = lambda outputs: outputs.predicted_depth
    pads: bool = False
    normalises: bool = True


def _depth_anything_kind(config: Any) -> Kind:
    return "metric" if config.depth_estimation_type == "metric" else "inverse"


def _dpt_kind(config: Any) -> Kind:
    """MiDaS heads give inverse depth; DINOv2's NYU and KITTI heads, known by projection, give metres."""
    return "metric" if config.add_projection else "inverse"


def _depth_pro_kind(config: Any) -> Kind:
    return "metric" if config.use_fov_model else "inverse"


def _read_depth_pro(outputs: Any) -> Tensor:
    """Metres from inverse depth of a camera as wide as its focal length; unchanged without the field of view.

    width / focal length is 2 tan(view / 2), whatever the width (Bochkovskii et al., 2024, eq. 1).
    """
    canonical, view_degrees = outputs.predicted_depth, outputs.field_of_view
    if view_degrees is None:
        return canonical
    width_over_focal = 2 * torch.tan(torch.deg2rad(view_degrees.float()) / 2)
    inverse_m = canonical.float() * width_over_focal[:, None, None]
    return 1 / inverse_m.clamp(1 / FARTHEST_M, 1 / NEAREST_M)


def _patches(config: Any, wanted: int) -> int:
    return _nearest(wanted, _patch_px(config))


def _dpt_size(config: Any, wanted: int) -> int:
    if config.is_hybrid:
        return _side(config.image_size)  # its convolutional stem accepts no other size
    backbone = config.backbone_config
    is_hierarchical = hasattr(backbone, "depths")
    return _nearest(wanted, 32 if is_hierarchical else 2 * _patch_px(backbone or config))


def _depth_pro_size(config: Any, wanted: int) -> int:
    """The side at which its smallest copy is one patch: 1536 px as published; it was trained on no other."""
    return math.ceil(_side(config.patch_size) / min(config.scaled_images_ratios))


def _patch_px(config: Any) -> int:
    return _side(config.patch_size)


def _side(size: int | list[int] | tuple[int, int]) -> int:
    return size if isinstance(size, int) else size[0]


def _nearest(wanted: int, multiple: int) -> int:
    return max(1, round(wanted / multiple)) * multiple


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "depth_anything": Family(_depth_anything_kind, _patches),
        "dpt": Family(_dpt_kind, _dpt_size),
        # Two heads: one is chosen for the whole batch, by the sum of all images' votes.
        "zoedepth": Family(
            lambda config: "metric",
            lambda config, wanted: _nearest(wanted, 2 * _patch_px(config.backbone_config)),
            one_by_one=lambda config: len(config.bin_configurations) > 1,
            pads=True,
        ),
        "depth_pro": Family(
            _depth_pro_kind, _depth_pro_size, one_by_one=lambda config: True, read=_read_depth_pro
        ),
        "glpn": Family(
            lambda config: "metric", lambda config, wanted: _nearest(wanted, 32), normalises=False
        ),
        "tipsv2_dpt": Family(
            lambda config: "metric",
            lambda config, wanted: _patches(config.backbone_config, wanted),
            normalises=False,
        ),
    }
)

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "prompt_depth_anything": "it needs a measured depth map as a prompt",
        "chmv2": "it estimates the height of trees seen from above",
    }
)
