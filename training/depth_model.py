"""Architecture, preprocessing and loss of room-depth-tiny, in Hugging Face classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, DPTImageProcessor

from training.tower import sine_positions

IMAGE_PX, PATCH_PX = 252, 14
DIM, LAYERS = 192, 8
TYPICAL_INVERSE_M = 0.3  # initial output of the head: at zero, its final ReLU would pass no gradient
GRADIENT_SCALES, GRADIENT_WEIGHT = 4, 0.5


def build_config() -> DepthAnythingConfig:
    """DINOv2 of 8 layers over 18 x 18 patches, read at every second layer by a DPT head 48 wide."""
    backbone = {
        "model_type": "dinov2",
        "hidden_size": DIM,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 3,
        "mlp_ratio": 4,
        "image_size": IMAGE_PX,
        "patch_size": PATCH_PX,
        "use_mask_token": False,
        "out_indices": [2, 4, 6, 8],
        "reshape_hidden_states": False,
    }
    return DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=PATCH_PX,
        reassemble_hidden_size=DIM,
        neck_hidden_sizes=[48, 64, 96, 128],
        fusion_hidden_size=48,
        head_hidden_size=16,
        depth_estimation_type="relative",
    )


def build_model(seed: int) -> DepthAnythingForDepthEstimation:
    """Build a model for training from scratch; the library's own initialisation is meant for fine-tuning."""
    torch.manual_seed(seed)
    model = DepthAnythingForDepthEstimation(build_config())
    for part in (*model.neck.modules(), *model.head.modules()):
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            part.reset_parameters()
    with torch.no_grad():
        model.head.conv3.weight.mul_(0.1)
        nn.init.constant_(model.head.conv3.bias, TYPICAL_INVERSE_M)  # pyright: ignore[reportArgumentType]
        # The model need not learn that images are two-dimensional.
        model.backbone.embeddings.position_embeddings[0, 1:] = sine_positions(IMAGE_PX // PATCH_PX, DIM)
    return model


def build_processor(image_px: int = IMAGE_PX) -> DPTImageProcessor:
    """Squash to a square and scale to -1..1."""
    return DPTImageProcessor(
        size={"height": image_px, "width": image_px},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        ensure_multiple_of=PATCH_PX,
        keep_aspect_ratio=False,
    )


def depth_loss(predicted: Tensor, inverse_m: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Scale- and shift-invariant error of inverse depth [B, H, W], and of its slopes at four scales.

    As in MiDaS (Ranftl et al., 2020), without its trimming: the truth here has no outliers.
    """
    error = _normalise(predicted) - _normalise(inverse_m)
    level = error.abs().mean()
    slopes = torch.stack([_slope(error[:, :: 2**k, :: 2**k]) for k in range(GRADIENT_SCALES)]).sum()
    return level + GRADIENT_WEIGHT * slopes, {"level": level.item(), "slopes": slopes.item()}


def _normalise(inverse: Tensor) -> Tensor:
    """Each map minus its median, over its mean distance from it."""
    centred = inverse - inverse.flatten(1).median(1).values[:, None, None]
    return centred / centred.abs().mean((1, 2), keepdim=True).clamp_min(1e-3)


def _slope(error: Tensor) -> Tensor:
    return error.diff(dim=1).abs().mean() + error.diff(dim=2).abs().mean()
