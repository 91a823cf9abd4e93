"""Token merging for vision transformers as pure functions; ToSA is one of its methods.

A method is matching x reduction on `Tokens`; a `MergePlan` fixes every shape before the model runs.
Imports only torch: no model, no HTTP, no depth map.
"""

from tosa.attention import attention, attention_by_channel
from tosa.exporters import UnsupportedExporter
from tosa.matching import Assignment, bipartite, cosine
from tosa.methods import METHODS, MergeMethod
from tosa.methods.options import Setting, settings_of
from tosa.plan import MergePlan, make_plan
from tosa.reduction import apply, drop, max_magnitude, mlerp, weighted_mean
from tosa.schedule import alpha_schedule, paper_schedule
from tosa.shape import EncoderShape
from tosa.spatial import KERNELS, SPATIAL_DIM, position_tokens, spatial_tokens
from tosa.spec import MergeSpec, MergeStep, PlanError, UnknownMethod
from tosa.tokens import Blend, Tokens, raster_order, recover, unmerge

__all__ = [
    "KERNELS",
    "METHODS",
    "SPATIAL_DIM",
    "Assignment",
    "Blend",
    "EncoderShape",
    "MergeMethod",
    "MergePlan",
    "MergeSpec",
    "MergeStep",
    "PlanError",
    "Setting",
    "Tokens",
    "UnknownMethod",
    "UnsupportedExporter",
    "alpha_schedule",
    "apply",
    "attention",
    "attention_by_channel",
    "bipartite",
    "cosine",
    "drop",
    "make_plan",
    "max_magnitude",
    "mlerp",
    "paper_schedule",
    "position_tokens",
    "raster_order",
    "recover",
    "settings_of",
    "spatial_tokens",
    "unmerge",
    "weighted_mean",
]
