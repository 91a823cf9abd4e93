"""How far ToSA may trust the picture and the depth, judged by the tokens alone: its alpha "auto".

Both are one number per image and layer, from each even token and its nearest odd ones in the scene.
"""

from __future__ import annotations

from torch import Tensor

NEIGHBOURS = 4
NO_AGREEMENT, FULL_AGREEMENT = 0.15, 0.35  # another frame's depth agrees by 0.1, the true one by 0.4
MOST_DEPTH = 2.0  # weight of depth that agrees, beside row and column, which weigh 1 each
_EQUAL = 2.0**-12  # equal distances on a grid differ by float noise
_TINY = 1e-6


def reliable_score(visual: Tensor, place: Tensor, depth: Tensor | None) -> Tensor:
    """Mix similarities of even with odd tokens by what they are worth: all [B, A, B'], and so is the score.

    visual: of keys; place: of row and column; depth: of depth levels, None without depth. The weight of the
    visual term is the square of the picture's reliability.
    """
    if 0 in visual.shape[1:]:
        return visual
    if depth is None:
        picture, spatial = picture_reliability(visual, place), place
    else:
        picture = picture_reliability(visual, (2 * place + depth) / 3)
        weight = depth_weight(visual, place, depth, picture)[:, None, None]
        spatial = (2 * place + weight * depth) / (2 + weight)
    alpha = picture.square()[:, None, None]
    return alpha * visual + (1 - alpha) * spatial


def picture_reliability(visual: Tensor, spatial: Tensor) -> Tensor:
    """Say how much more alike the keys of neighbours in the scene are than those of any tokens: [B], 0 to 1.

    Of the typical token (the median): noise makes neighbours as strange to each other as anything else.
    """
    near = _nearest(spatial)
    mean_near = (visual * near).sum(dim=2) / near.sum(dim=2)
    middle = mean_near.topk(mean_near.shape[1] // 2 + 1, dim=1).values[:, -1]
    anywhere = visual.mean(dim=(1, 2))
    return ((middle - anywhere) / (1 - anywhere).clamp(min=_TINY)).clamp(0, 1)


def depth_weight(visual: Tensor, place: Tensor, depth: Tensor, picture: Tensor) -> Tensor:
    """Weigh depth by how well it predicts which neighbours have similar keys: [B], 0 to MOST_DEPTH.

    That is a correlation over pairs of neighbours by row and column. Noise weakens it as it weakens the
    picture's reliability, so that the quotient of both says what depth is worth in any light.
    """
    near = _nearest(place)
    pairs = near.sum(dim=(1, 2), keepdim=True)
    keys, levels = (
        (each - (each * near).sum(dim=(1, 2), keepdim=True) / pairs) * near for each in (visual, depth)
    )
    spread = (keys.square().sum(dim=(1, 2)) * levels.square().sum(dim=(1, 2))).sqrt()
    agreement = (keys * levels).sum(dim=(1, 2)) / spread.clamp(min=_TINY)
    worth = agreement / picture.clamp(min=0.05)
    return MOST_DEPTH * ((worth - NO_AGREEMENT) / (FULL_AGREEMENT - NO_AGREEMENT)).clamp(0, 1)


def _nearest(similarity: Tensor) -> Tensor:
    """Mark each row's most similar columns, with all that equal the last of them: [B, A, B'] of 0 and 1."""
    last = similarity.topk(min(NEIGHBOURS, similarity.shape[-1]), dim=-1).values[..., -1:]
    return (similarity >= last - _EQUAL).to(similarity.dtype)
