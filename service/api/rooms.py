"""POST /rooms: a synthetic room with depth, questions and answers, as `tosa-vqa scene` writes it."""

from __future__ import annotations

import base64
import io
from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from service.api.json_body import read_object
from service.api.openapi import request_body
from service.api.openapi_examples import ROOM
from service.api.receiving import receive
from service.api.request_context import RequestContext
from service.api.responses import ERROR_RESPONSES
from service.api.serialise import json_response
from service.budgets import Costs
from service.pipeline.response_models import ResponseModel, described_field
from service.request.validation import validated
from service.roomqa.arrange import make_scene
from service.roomqa.condition import Condition
from service.roomqa.depth_cameras import measured_depth
from service.roomqa.export import millimetres
from service.roomqa.questions import questions
from service.roomqa.render import render
from service.roomqa.scene import CAMERA_HEIGHT_M, FOCAL
from service.roomqa.spoil import spoil

router = APIRouter()
SIZE_PX = 384
MAX_SEED = 2**53 - 1
"""Largest integer that every reader of JSON keeps as it is."""
QUESTIONS = 8


class RoomFields(BaseModel):
    """Hold the fields of a room."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(ge=0, le=MAX_SEED, description="Which room.", examples=[7])
    condition: (
        Literal["dark", "noise", "motion", "defocus", "glare", "fog", "jpeg", "cast", "dead"] | None
    ) = Field(default=None, description="What spoils the picture.", examples=["dark"])
    strength: int = Field(default=2, ge=1, le=3, description="How much it does.", examples=[2])
    depth_camera: Literal["exact", "active", "stereo"] = Field(
        default="exact", description="What measures depth.", examples=["stereo"]
    )


ROOM_BODY = request_body(RoomFields, ROOM)


class RoomCamera(ResponseModel):
    """Describe the camera of a room, in pixels of the picture."""

    size_px: int = described_field("Width and height of the picture.", 384)
    focal_px: float = described_field("Focal length.", 249.6)
    centre_px: tuple[float, float] = described_field("Column and row of the optical axis.", [192, 153.6])
    height_m: float = described_field("Height above the floor.", 1.2)


class RoomQuestion(ResponseModel):
    """Hold a question about a room, answered from what is visible."""

    question: str = described_field("The question.", "How many chairs are in the room?")
    answer: str = described_field("The right answer.", "2")
    type: str = described_field("Kind of question.", "count")


class RoomResponse(ResponseModel):
    """Hold a synthetic room as a camera with depth sees it."""

    request_id: str = described_field("Name of the request, as in X-Request-ID.", "robot-7.0042")
    seed: int = described_field("Which room.", 7)
    image: str = described_field("The picture, a PNG in base64.", "iVBORw0KGgo=")
    depth: str = described_field("Its depth in millimetres, a 16-bit PNG in base64.", "iVBORw0KGgo=")
    camera: RoomCamera = described_field("The camera.")
    questions: list[RoomQuestion] = described_field("Questions with their right answers.")


@router.post(
    "/rooms",
    response_model=RoomResponse,
    responses=ERROR_RESPONSES,
    openapi_extra=ROOM_BODY,
)
async def room(request: Request) -> Response:
    """Draw a synthetic room that the embedded models know, with depth and questions. Needs no model."""
    async with receive(request, "/rooms", RoomFields, json_only=True, needs_models=False) as received:
        return json_response(await received.in_thread(lambda: _drawn(received.context, received.body)))


def _drawn(context: RequestContext, body: bytes) -> RoomResponse:
    fields = validated(RoomFields, read_object(body), strict=True, codes={})
    context.costs.append(Costs(pixels=2 * SIZE_PX**2))
    scene = make_scene(fields.seed)
    frame = render(scene, SIZE_PX)
    rgb = frame.rgb
    if fields.condition is not None:
        rgb = spoil(rgb, Condition(fields.condition, fields.strength), fields.seed, frame.depth)
    depth = measured_depth(fields.depth_camera, frame.depth, rgb, fields.seed)
    context.check()
    asked = questions(scene, frame, fields.seed, QUESTIONS)
    return RoomResponse(
        request_id=context.request_id,
        seed=fields.seed,
        image=_png(rgb),
        depth=_png(millimetres(depth)),
        camera=RoomCamera(
            size_px=SIZE_PX,
            focal_px=FOCAL * SIZE_PX,
            centre_px=(SIZE_PX / 2, scene.horizon * SIZE_PX),
            height_m=CAMERA_HEIGHT_M,
        ),
        questions=[RoomQuestion(**asdict(question)) for question in asked],
    )


def _png(pixels: NDArray[Any]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return base64.b64encode(buffer.getvalue()).decode()
