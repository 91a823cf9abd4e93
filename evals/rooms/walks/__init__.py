"""RoomQA walks: their frozen splits, and what is measured on them."""

from evals.rooms.walks.splits import TEST_WALKS, TRAIN_WALKS, VALIDATION_WALKS, WalkExample, walk_examples
from service.roomqa.walks.arrange import make_walk
from service.roomqa.walks.questions import WALK_TYPES, Sights, WalkQuestion, sights, walk_questions
from service.roomqa.walks.render import render_view
from service.roomqa.walks.world import EIGHT, FRAMES, Camera, Walk

__all__ = [
    "EIGHT",
    "FRAMES",
    "TEST_WALKS",
    "TRAIN_WALKS",
    "VALIDATION_WALKS",
    "WALK_TYPES",
    "Camera",
    "Sights",
    "Walk",
    "WalkExample",
    "WalkQuestion",
    "make_walk",
    "render_view",
    "sights",
    "walk_examples",
    "walk_questions",
]
