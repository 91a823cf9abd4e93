"""What a request may say about its depth files; how files are read with it is the business of depth/."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from depth.presets import KINDS, PRESETS
from depth.reading import MAX_INVALID, ReadingOptions, choose_reading
from service.request.coercion import number_list

PRESET_NAMES = (*PRESETS, "realsense:<scale>", "auto")
_ANY_DTYPE = np.dtype(np.uint16)


class DepthFields(BaseModel):
    """Hold what was said about the numbers of depth files; what was not is guessed, and that is said."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    depth_preset: Annotated[str, Field(max_length=64)] | None = Field(
        default=None,
        description=f"Where depth files come from: {', '.join(PRESET_NAMES)}. Says scale and kind.",
        examples=["scannet", "tum", "realsense:0.001"],
    )
    depth_scale: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="Depth units per metre; guessed if not sent: 1000 for integers, 1 for floats.",
        examples=[1000, 5000],
    )
    depth_kind: Annotated[str, Field(max_length=32)] | None = Field(
        default=None,
        description=f"What the numbers are: {', '.join(KINDS)}; inverse grows towards the camera.",
        examples=["metric"],
    )
    depth_invalid: Annotated[
        Annotated[list[float], Field(max_length=MAX_INVALID)] | None, BeforeValidator(number_list)
    ] = Field(
        default=None,
        description="Numbers of the file that are holes, besides 0, negative, NaN and infinite ones.",
        examples=[[65535]],
    )

    def reading_options(self) -> ReadingOptions:
        """Return the same as depth/ takes it."""
        return {
            "preset": self.depth_preset,
            "scale": self.depth_scale,
            "kind": self.depth_kind,
            "invalid": tuple(self.depth_invalid or ()),
        }

    def check_reading(self) -> None:
        """Check that the fields are possible and go together, before any file is read. Raises DepthError."""
        choose_reading(_ANY_DTYPE, **self.reading_options())


class InspectFields(DepthFields):
    """Hold the fields of a depth file to be inspected."""

    picture: bool = Field(
        default=False, description="Whether to answer with a picture too, as base64 PNG.", examples=[True]
    )
