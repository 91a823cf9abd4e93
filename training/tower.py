"""The tower in training: its forward pass, initial positions, and the loss of its dense heads."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SiglipVisionModel

from training.symbols import ANCHOR, BACKGROUND, COLOUR, FACTS, PLACE, SHAPE, THING

ANCHOR_WEIGHT = 8.0  # a frame has a few anchors among hundreds of patches


def normalise(pixels: Tensor) -> Tensor:
    """uint8 RGB to -1..1, as the checkpoint's preprocessor does."""
    return pixels.float() / 127.5 - 1


def run_tower(tower: SiglipVisionModel, pixels: Tensor) -> Tensor:
    """Output of the last layer before the final norm, [B, N, C]; positions are interpolated."""
    hidden = tower.embeddings(pixels, interpolate_pos_encoding=True)
    for layer in tower.encoder.layers:
        hidden = layer(hidden, None)
    return hidden


@torch.no_grad()
def start_positions(tower: SiglipVisionModel) -> None:
    """Initialise sine and cosine positions instead of noise, so that the grid need not be learnt."""
    weight = tower.embeddings.position_embedding.weight
    weight.copy_(sine_positions(math.isqrt(len(weight)), weight.shape[1]))


def sine_positions(side: int, dim: int) -> Tensor:
    """Code row and column of every patch in sine and cosine waves: [side * side, dim]."""
    place = (torch.arange(side) + 0.5) / side * 2 * math.pi
    waves = place[:, None] * torch.logspace(math.log10(0.5), math.log10(8), dim // 4)
    code = torch.cat([waves.sin(), waves.cos()], 1)
    return torch.cat([code.repeat_interleave(side, 0), code.repeat(side, 1)], 1) * 0.3


def dense_loss(predicted: Tensor, symbols: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Loss of predicting the symbols [B, N, WIDTH], and accuracy of colour, shape, depth and anchors."""
    thing = symbols[..., THING].squeeze(-1) > 0
    anchor = symbols[..., ANCHOR]
    weight = torch.where(symbols[..., THING] > 0, 1 + (ANCHOR_WEIGHT - 1) * anchor, 0.25)
    mine, wanted = predicted[thing], symbols[thing]
    colour = F.cross_entropy(mine[:, COLOUR], wanted[:, COLOUR].argmax(-1))
    shape = F.cross_entropy(mine[:, SHAPE], wanted[:, SHAPE].argmax(-1))
    surfaces = F.binary_cross_entropy_with_logits(predicted[..., BACKGROUND], symbols[..., BACKGROUND])
    things = F.binary_cross_entropy_with_logits(predicted[..., THING], symbols[..., THING])
    anchors = (
        F.binary_cross_entropy_with_logits(predicted[..., ANCHOR], anchor, reduction="none") * weight
    ).mean()
    place = F.smooth_l1_loss(predicted[..., PLACE], symbols[..., PLACE], beta=0.05)
    facts = F.smooth_l1_loss(mine[:, FACTS], wanted[:, FACTS], beta=0.05)
    with torch.no_grad():
        shape_right = (mine[:, SHAPE].argmax(-1) == wanted[:, SHAPE].argmax(-1)).float().mean().item()
        colour_right = (mine[:, COLOUR].argmax(-1) == wanted[:, COLOUR].argmax(-1)).float().mean().item()
        chosen, real = predicted[..., ANCHOR] > 0, anchor > 0
        hits = (chosen & real).sum().item()
        f1 = 2 * hits / max(1, chosen.sum().item() + real.sum().item())
        far = (mine[:, FACTS][:, 2] - wanted[:, FACTS][:, 2]).abs().mean().item()
    loss = colour + shape + surfaces + things + 6 * anchors + 2 * place + 2 * facts
    return loss, {"shape": shape_right, "colour": colour_right, "anchor_f1": f1, "distance": far}
