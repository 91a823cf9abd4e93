"""Token merging for vision transformers as pure functions; ToSA is one of its methods.

A method is matching x reduction on `Tokens`; a `MergePlan` fixes every shape before the model runs.
Imports only torch: no model, no HTTP, no depth map.
"""

from tosa.attention import attention, attention_by_channel
from tosa.cells import cell_major, row_major
from tosa.exporters import UnsupportedExporter
from tosa.matching import Assignment, bipartite, cosine
from tosa.merging import merge_step
from tosa.methods import METHODS, MergeMethod
from tosa.methods.options import Setting, settings_of
from tosa.plan import MergePlan, make_plan
from tosa.recovery import raster_order, recover, unmerge, whole_grid
from tosa.reduction import apply, drop, max_magnitude, mlerp, weighted_mean
from tosa.schedule import alpha_schedule, paper_schedule
from tosa.shape import EncoderShape
from tosa.spatial import KERNELS, SPATIAL_DIM, position_tokens, spatial_tokens
from tosa.spec import MergeSpec, MergeStep, PlanError, UnknownMethod
from tosa.tokens import Blend, Tokens, cell_places, cells_of, sizes_of_rows
from tosa.windows import by_window

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
    "by_window",
    "cell_major",
    "cell_places",
    "cells_of",
    "cosine",
    "drop",
    "make_plan",
    "max_magnitude",
    "merge_step",
    "mlerp",
    "paper_schedule",
    "position_tokens",
    "raster_order",
    "recover",
    "row_major",
    "settings_of",
    "sizes_of_rows",
    "spatial_tokens",
    "unmerge",
    "weighted_mean",
    "whole_grid",
]
