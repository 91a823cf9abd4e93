"""Tiny random depth estimation checkpoints, saved as real ones are, and estimators that never load one."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    BeitConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DepthProConfig,
    DepthProForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    GLPNConfig,
    GLPNForDepthEstimation,
    PreTrainedModel,
    Tipsv2DptConfig,
    Tipsv2DptForDepthEstimation,
    ZoeDepthConfig,
)

from depth.estimate import EstimatorError, Kind
from depth.estimators import load_depth_estimator

STAGES = ["stage1", "stage2", "stage3", "stage4"]
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
}
FEATURES: dict[str, Any] = {"out_features": STAGES, "reshape_hidden_states": False}
NECK: dict[str, Any] = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 16}
STANDARD: dict[str, Any] = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7], "resample": 3}


def depth_anything(kind: str = "relative", max_depth: int = 1) -> PreTrainedModel:
    backbone = Dinov2Config(**TINY, **FEATURES, mlp_ratio=1, image_size=56, patch_size=14)
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=32,
        **NECK,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=max_depth,
    )
    return DepthAnythingForDepthEstimation(config)


def dpt(**options: Any) -> PreTrainedModel:
    sizes = {**TINY, **NECK, "image_size": 64, "backbone_out_indices": [0, 1, 2, 3]}
    return DPTForDepthEstimation(DPTConfig(**(sizes | options)))


def dpt_dinov2() -> PreTrainedModel:
    backbone = Dinov2Config(**TINY, **FEATURES, mlp_ratio=1, image_size=56, patch_size=14)
    # The projection of this head is 256 wide, whatever the config says.
    sizes: dict[str, Any] = {"hidden_size": 32, "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 256}
    return DPTForDepthEstimation(DPTConfig(backbone_config=backbone, add_projection=True, **sizes))


def dpt_hybrid() -> PreTrainedModel:
    stem = {
        "model_type": "bit",
        "global_padding": "same",
        "layer_type": "bottleneck",
        "depths": [1, 1, 1],
        "hidden_sizes": [8, 16, 32],
        "embedding_size": 8,
        "num_groups": 4,
        "out_features": STAGES[:3],
        "embedding_dynamic_padding": True,
    }
    shapes: dict[str, Any] = {"backbone_featmap_shape": [1, 32, 4, 4], "neck_hidden_sizes": [8, 16, 8, 8]}
    return dpt(is_hybrid=True, backbone_config=stem, **shapes)


def dpt_swin() -> PreTrainedModel:
    backbone = {
        "model_type": "swinv2",
        "image_size": 64,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 4,
        "out_features": STAGES,
    }
    config = DPTConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8, 16, 32, 64],
        reassemble_factors=[1, 1, 1, 1],
        fusion_hidden_size=16,
        readout_type="ignore",
    )
    return DPTForDepthEstimation(config)


def zoedepth(heads: int = 1) -> PreTrainedModel:
    with warnings.catch_warnings():  # importing it makes older transformers use what torch deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        from transformers import ZoeDepthForDepthEstimation

    backbone = BeitConfig(**TINY, **FEATURES, image_size=64, patch_size=16, use_relative_position_bias=True)
    names = [("nyu", 10.0), ("kitti", 80.0)][:heads]
    config = ZoeDepthConfig(
        backbone_config=backbone,
        **NECK,
        bottleneck_features=16,
        num_relative_features=8,
        num_attractors=[4, 4, 2, 1],
        bin_embedding_dim=8,
        bin_configurations=[
            {"name": name, "n_bins": 8, "min_depth": 1e-3, "max_depth": most} for name, most in names
        ],
        num_patch_transformer_layers=4,
        patch_transformer_hidden_size=128,
        patch_transformer_intermediate_size=16,
        patch_transformer_num_attention_heads=2,
    )
    return ZoeDepthForDepthEstimation(config)


def depth_pro(view: bool = True) -> PreTrainedModel:
    encoder = {"model_type": "dinov2", **TINY, "num_hidden_layers": 2, "image_size": 16, "patch_size": 8}
    config = DepthProConfig(
        patch_size=16,
        fusion_hidden_size=16,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.2],
        scaled_images_feature_dims=[8, 8],
        merge_padding_value=1,
        use_fov_model=view,
        num_fov_head_layers=0,
        image_model_config=dict(encoder),
        patch_model_config=dict(encoder),
        fov_model_config=dict(encoder),
    )
    return DepthProForDepthEstimation(config)


def glpn() -> PreTrainedModel:
    config = GLPNConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        decoder_hidden_size=8,
        num_attention_heads=[1, 1, 2, 2],
    )
    return GLPNForDepthEstimation(config)


def tips() -> PreTrainedModel:
    backbone = {
        "model_type": "tipsv2_vision_model",
        **TINY,
        **FEATURES,
        "image_size": 56,
        "patch_size": 14,
    }
    config = Tipsv2DptConfig(backbone_config=backbone, **NECK, num_depth_bins=8)
    return Tipsv2DptForDepthEstimation(config)


@dataclass(frozen=True)
class Case:
    """One class of checkpoint: how to make it, what its output must be, and the view it takes for 64 px."""

    make: Callable[[], PreTrainedModel]
    kind: Kind
    view_px: int
    map_px: int
    batch_size: int = 16
    settings: str = "DPTImageProcessor"


CASES = {
    "depth-anything": Case(depth_anything, "inverse", 70, 70),
    "depth-anything-metric": Case(lambda: depth_anything("metric", 20), "metric", 70, 70),
    "dpt": Case(dpt, "inverse", 64, 64),
    "dpt-dinov2": Case(dpt_dinov2, "metric", 56, 64),
    "dpt-hybrid": Case(dpt_hybrid, "inverse", 64, 64),
    "dpt-swin": Case(dpt_swin, "inverse", 64, 64),
    "zoedepth": Case(zoedepth, "metric", 64, 64, settings="ZoeDepthImageProcessor"),
    "zoedepth-two-heads": Case(lambda: zoedepth(2), "metric", 64, 64, 1, "ZoeDepthImageProcessor"),
    "pro": Case(depth_pro, "metric", 32, 64, 1, "DepthProImageProcessor"),
    "pro-without-view": Case(lambda: depth_pro(False), "inverse", 32, 64, 1, "DepthProImageProcessor"),
    "glpn": Case(glpn, "metric", 64, 64, settings="GLPNImageProcessor"),
    "tips": Case(tips, "metric", 70, 48, settings="Tipsv2DptImageProcessor"),
}


def write_checkpoint(
    folder: Path, case: Case, card: str | None = "license: apache-2.0", **settings: Any
) -> Path:
    """Save a random model whose maps are not flat; `settings` change its preprocessor_config.json."""
    torch.manual_seed(0)
    model = case.make()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(std=weight[0].numel() ** -0.5)
            elif weight.numel() == 1 and name.endswith("bias"):
                # What the last ReLU lets through; or, of Depth Pro's other head, degrees of a usual camera.
                weight.fill_(60 if name.startswith("fov") else 1)
    model.save_pretrained(folder)
    asked = {"image_processor_type": case.settings, **STANDARD, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(asked))
    write_card(folder, card)
    return folder


def write_card(folder: Path, card: str | None) -> None:
    """Give a checkpoint a model card with this YAML, or none."""
    (folder / "README.md").unlink(missing_ok=True)
    if card is not None:
        (folder / "README.md").write_text(f"---\n{card}\n---\n# A model\n")


def refusal(source: str | Path, **options: Any) -> EstimatorError:
    with pytest.raises(EstimatorError) as error:
        load_depth_estimator(source, **options)
    assert "\n" not in str(error.value)
    return error.value


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def sample_images(number: int = 3, size: tuple[int, int] = (80, 60)) -> list[Image.Image]:
    """Blurred noise: something to see at every place, different in every image."""
    noise = np.random.default_rng(0).integers(0, 256, (number, 6, 8, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize(size, Image.Resampling.BILINEAR) for one in noise]


class Fake:
    """An estimator whose answer is given; counts how often, and for how many images, it was asked."""

    licence: str | None = None

    def __init__(self, answer: Callable[[Image.Image], NDArray[Any]], kind: Kind = "inverse") -> None:
        self.answer = answer
        self.kind: Kind = kind
        self.id, self.revision, self.size_px = "fake", "1", 4
        self.asked: list[int] = []

    def predict(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        self.asked.append(len(images))
        return np.stack([self.answer(image) for image in images]).astype(np.float32)
