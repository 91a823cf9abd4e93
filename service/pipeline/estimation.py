"""The depth estimator of this process and its cache.

Estimating belongs in the model thread. What loads a model is imported only when one is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from depth import DepthMap
from depth.estimate import DepthEstimator, estimate
from depth.estimate_cache import EstimateCache
from service.settings import Settings

LARGEST_VIEW_PX = 1536  # Depth Pro's


@dataclass(frozen=True, eq=False)
class Estimation:
    """Hold an estimator and its cache of recent maps; thread-safe."""

    estimator: DepthEstimator
    cache: EstimateCache

    def estimate(
        self, images: Sequence[Image.Image], tenants: Sequence[str | None]
    ) -> tuple[list[DepthMap], list[bool]]:
        """Return one map per image, and whether it was remembered. Raises EstimatorError.

        tenants: whose remembered maps may be used for each image, None if none may, and none is kept.
        """
        mine = [at for at, tenant in enumerate(tenants) if tenant is not None]
        others = [at for at, tenant in enumerate(tenants) if tenant is None]
        scopes = [tenant for tenant in tenants if tenant is not None]
        known = self.cache.recall_or_estimate(self.estimator, [images[at] for at in mine], scopes)
        fresh = estimate(self.estimator, [images[at] for at in others]) if others else []
        found = dict(zip(mine, known, strict=True))
        found |= {at: (depth, False) for at, depth in zip(others, fresh, strict=True)}
        ordered = [found[at] for at in range(len(images))]
        return [depth for depth, _ in ordered], [is_hit for _, is_hit in ordered]


def to_wait(image: Image.Image) -> Image.Image:
    """Make a large image smaller while it waits for its estimate, by a whole factor; others stay as they are.

    No estimator sees more than LARGEST_VIEW_PX, and a full queue of large images would fill the memory.
    """
    factor = max(image.size) // LARGEST_VIEW_PX
    return image.reduce(factor) if factor > 1 else image


def load_estimation(settings: Settings) -> Estimation | None:
    """Load the estimator these settings name, None if they name none; it has then run once.

    float32 whatever the dtype of the language model: the heads of depth estimators overflow float16. Raises
    EstimatorError.
    """
    if not settings.estimates_depth:
        return None
    from depth.estimators import load_depth_estimator

    estimator = load_depth_estimator(
        settings.depth_model,
        settings.device,
        allow_non_commercial=settings.allow_non_commercial,
        size_px=settings.depth_size_px,
        require_manifest=settings.require_manifest,
    )
    return Estimation(estimator, EstimateCache(settings.depth_cache_bytes))
