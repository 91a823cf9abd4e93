"""RoomQA: the rooms of `service.roomqa`, its frozen splits, and what measures answers about them."""

from evals.rooms.splits import TEST, TRAIN, VALIDATION, Example, digest, examples
from service.roomqa.arrange import make_plain_scene, make_scene
from service.roomqa.questions import TYPES, Question, questions
from service.roomqa.render import Frame, render
from service.roomqa.scene import Room, Scene, Thing

__all__ = [
    "TEST",
    "TRAIN",
    "TYPES",
    "VALIDATION",
    "Example",
    "Frame",
    "Question",
    "Room",
    "Scene",
    "Thing",
    "digest",
    "examples",
    "make_plain_scene",
    "make_scene",
    "questions",
    "render",
]
