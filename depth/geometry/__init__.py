"""Frames with geometry: poses, intrinsics, the places of patches, and whether frames agree."""

from depth.conventions import CONVENTIONS, Convention
from depth.geometry.agreement import Agreement, SampledFrame, fit, sampled
from depth.geometry.camera import Intrinsics, read_intrinsics
from depth.geometry.patches import PatchGrid, PatchPoints, patch_points
from depth.geometry.pose import Pose, inverted, read_pose, transformed

__all__ = [
    "CONVENTIONS",
    "Agreement",
    "Convention",
    "Intrinsics",
    "PatchGrid",
    "PatchPoints",
    "Pose",
    "SampledFrame",
    "fit",
    "inverted",
    "patch_points",
    "read_intrinsics",
    "read_pose",
    "sampled",
    "transformed",
]
