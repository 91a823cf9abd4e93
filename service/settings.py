"""What is fixed for the life of one process; no field here may also be a field of a request."""

import torch
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Settings(BaseSettings):
    """Hold the process settings; each can be set by an environment variable TOSA_VQA_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="TOSA_VQA_", frozen=True, extra="forbid")

    model: str = Field(default="room-tiny", description="Embedded checkpoint, local folder, or hub id.")
    device: str = Field(default="cpu", description="Torch device, for example cpu or cuda.")
    dtype: str = Field(
        default="float32", description="Weights and activations: float32, bfloat16 or float16."
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="Torch threads; torch decides if not set."
    )
    decode_threads: int = Field(default=2, ge=1, le=64, description="Threads that decode and prepare inputs.")
    max_queue: int = Field(default=16, ge=0, description="Requests that may wait while one is answered.")
    max_body_mib: float = Field(default=32, gt=0, description="Largest request body.")
    body_timeout_s: float = Field(
        default=30, gt=0, description="Longest time a client may take to send its body."
    )
    max_images: int = Field(default=8, ge=1, description="Most images of one question.")
    max_image_px: int = Field(default=16_777_216, ge=1, description="Most pixels of one image or depth map.")
    max_question_chars: int = Field(default=2000, ge=1, description="Longest question.")
    max_answer_tokens: int = Field(default=256, ge=1, description="Ceiling of max_new_tokens.")

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, value: str) -> str:
        if value not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}")
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        try:
            torch.device(value)
        except RuntimeError:
            raise ValueError("device must be one that torch knows, such as cpu or cuda") from None
        return value

    @property
    def max_body_bytes(self) -> int:
        """Return the body limit in bytes."""
        return int(self.max_body_mib * 2**20)

    @property
    def torch_dtype(self) -> torch.dtype:
        """Return the dtype as torch knows it."""
        return DTYPES[self.dtype]
