"""Token merging for vision transformers as pure functions; ToSA is one of its methods.

A method is matching x reduction on `Tokens`; a `MergePlan` fixes every shape before the model runs.
Imports only torch: no model, no HTTP, no depth map.
"""

from tosa.attention import attention, attention_by_channel
from tosa.matching import Assignment, bipartite, cosine
from tosa.methods import METHODS, MergeMethod
from tosa.plan import EncoderShape, MergePlan, make_plan
from tosa.reduction import apply, weighted_mean
from tosa.schedule import alpha_schedule, paper_schedule
from tosa.spatial import SPATIAL_DIM, spatial_tokens
from tosa.spec import MergeSpec, MergeStep, PlanError, UnknownMethod
from tosa.tokens import Tokens, raster_order, unmerge

__all__ = [
    "METHODS",
    "SPATIAL_DIM",
    "Assignment",
    "EncoderShape",
    "MergeMethod",
    "MergePlan",
    "MergeSpec",
    "MergeStep",
    "PlanError",
    "Tokens",
    "UnknownMethod",
    "alpha_schedule",
    "apply",
    "attention",
    "attention_by_channel",
    "bipartite",
    "cosine",
    "make_plan",
    "paper_schedule",
    "raster_order",
    "spatial_tokens",
    "unmerge",
    "weighted_mean",
]
