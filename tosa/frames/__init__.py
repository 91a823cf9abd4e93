"""Merging across the frames of an episode: pure functions on tokens with places.

They act after the projector and before the language model, read no question, and compose with any method
inside frames.
"""

from tosa.frames.memory import CAPACITY, Admitted, EpisodeMemory, merge_frames
from tosa.frames.placed import FrameTokens, PlacedTokens, token_points
from tosa.frames.rule import DEFAULT_BUDGET, GEOMETRIC, MERGE_FRAMES, FrameRule, MergeFrames
from tosa.frames.select import BudgetTooSmall, Kept, select_tokens

__all__ = [
    "CAPACITY",
    "DEFAULT_BUDGET",
    "GEOMETRIC",
    "MERGE_FRAMES",
    "Admitted",
    "BudgetTooSmall",
    "EpisodeMemory",
    "FrameRule",
    "FrameTokens",
    "Kept",
    "MergeFrames",
    "PlacedTokens",
    "merge_frames",
    "select_tokens",
    "token_points",
]
