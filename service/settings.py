"""Settings of one process; no field here may also be a field of a request.

torch is imported lazily, since processes that load no model read the settings too.
"""

from __future__ import annotations

from service.needed import require

require()

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    import torch

URL = re.compile(r"https?://[^\s/?#@,]+(/[^\s?#@,]*)?")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@,*]+")
SIZE = re.compile(r"[a-z]+(:\d+)?=\d+(\.\d+)?")
DTYPES = ("auto", "float32", "bfloat16", "float16")


class Settings(BaseSettings):
    """Hold the process settings; each can be set by an environment variable TOSA_VQA_<NAME>."""

    model_config = SettingsConfigDict(
        env_prefix="TOSA_VQA_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    model: str = Field(default="room-tiny", description="Embedded checkpoint, local folder or hub id.")
    depth_model: str = Field(
        default="room-depth-tiny",
        description="Depth estimator, named like the model; none turns estimation off.",
    )
    depth_size_px: int = Field(
        default=252, ge=1, description="Side of the square image that the estimator sees."
    )
    depth_cache_mib: float = Field(
        default=64, ge=0, description="Memory for estimated depth maps; 0 turns the cache off."
    )
    allow_non_commercial: bool = Field(
        default=False, description="Load a depth estimator whose licence excludes commercial use."
    )
    require_manifest: bool = Field(
        default=False,
        description="Refuse checkpoints without SHA256SUMS. A file that exists is always checked.",
    )
    device: str = Field(default="cpu", description="Torch device, such as cpu or cuda.")
    dtype: str = Field(
        default="auto",
        description="Weights and activations: auto (the checkpoint's own), float32, bfloat16 or float16.",
    )
    device_map: Literal["none", "auto", "balanced", "sequential"] = Field(
        default="none",
        description="Divide the language model among GPUs: none; auto or balanced, evenly; sequential.",
    )
    device_memory_gib: str | None = Field(
        default=None,
        description="Memory for weights, cuda:0=20,cuda:1=40; if not set, 80 % of what each GPU has free.",
    )
    language: Literal["torch", "vllm"] = Field(
        default="torch",
        description="Who reads prompts and writes answers: torch in this process, or servers of vllm.",
    )
    language_urls: str | None = Field(
        default=None,
        description="Addresses of the vllm servers, the only ones called: http://a.example:8000,http://b.example.",
    )
    language_model: str | None = Field(
        default=None, description="Name of the model on these servers; if not set, the first they list."
    )
    language_api_key: SecretStr | None = Field(
        default=None, description="API key of these servers, sent as Authorization: Bearer."
    )
    language_timeout_s: float = Field(
        default=30,
        gt=0,
        description="Longest silence of such a server in an answer, the wait for it included.",
    )
    language_probe: Path | None = Field(
        default=None,
        description="Folder that tosa-vqa language-model wrote for them; its answers prove their weights.",
    )
    calibration: Path | None = Field(
        default=None,
        description="File that tosa-vqa calibrate wrote for this model and machine, for method=auto.",
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="Torch threads; if not set, torch decides."
    )
    decode_threads: int = Field(default=2, ge=1, le=64, description="Threads that decode and prepare inputs.")
    max_queue: int = Field(default=16, ge=0, description="Requests that may wait while a batch is answered.")
    max_batch: int = Field(default=8, ge=1, le=256, description="Most images in one batch.")
    request_timeout_s: float = Field(
        default=30,
        gt=0,
        description="Longest time from a request's arrival to its answer. A request may set a shorter one.",
    )
    frame_cache_mib: float = Field(
        default=256, ge=0, description="Memory for encoded frames; 0 turns the cache off."
    )
    episodes_dir: Path | None = Field(
        default=None,
        description="Directory that keeps episodes over a restart and shares them among replicas; if not "
        "set, they are in memory alone.",
    )
    episode_tokens: int = Field(
        default=16_384, ge=64, description="Most visual tokens that an episode holds between questions."
    )
    episode_idle_s: float = Field(
        default=3600, gt=0, description="Time after which an episode that nobody used is deleted."
    )
    key_max_episodes: int = Field(
        default=64, ge=1, description="Most episodes of one key; of all clients where there are no keys."
    )
    key_episodes_mib: float = Field(default=1024, gt=0, description="Memory for the episodes of one key.")
    max_body_mib: float = Field(default=32, gt=0, description="Largest request body.")
    body_timeout_s: float = Field(
        default=15, gt=0, description="Longest time a client may take to send its body."
    )
    max_arriving: int = Field(
        default=256,
        ge=1,
        description="Most request bodies that may be arriving at a time; they hold no place in the queue.",
    )
    max_arriving_mib: float = Field(
        default=256,
        gt=0,
        description="Memory for the bodies that are arriving; one of the largest size always fits.",
    )
    max_images: int = Field(default=8, ge=1, description="Most images in one question.")
    max_image_px: int = Field(default=16_777_216, ge=1, description="Most pixels of one image or depth map.")
    max_question_chars: int = Field(default=2000, ge=1, description="Longest question.")
    max_answer_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Longest answer in tokens, whatever a request says; if not set, the model's context.",
    )
    max_compared: int = Field(default=12, ge=1, description="Most settings in one comparison.")
    api_keys: SecretStr | None = Field(
        default=None,
        description="API keys as name=secret,name=sha256:<hex>. Without keys, every client is served.",
    )
    api_keys_file: Path | None = Field(default=None, description="File with one such key per line.")
    cors_origins: str | None = Field(
        default=None,
        description="Web origins whose pages may ask: https://a.example,http://localhost:5173, or * for all.",
    )
    playground: bool = Field(default=True, description="Show browsers a page to try requests at GET /.")
    key_max_in_flight: int | None = Field(
        default=None, ge=1, description="Most requests of one key in flight."
    )
    key_units_per_minute: float | None = Field(
        default=None,
        gt=0,
        description="Budget of one key: a unit is a megapixel decoded, or 100 tokens read or generated.",
    )
    drain_pause_s: float = Field(
        default=5,
        ge=0,
        description="Time between SIGTERM, when the service stops being ready, and refusing requests.",
    )
    drain_timeout_s: float = Field(
        default=30, ge=0, description="Time for running requests to finish after that."
    )
    stall_timeout_s: float = Field(
        default=5,
        gt=0,
        description="Age of the model thread's heartbeat from which the service is not ready.",
    )
    stall_exit_s: float = Field(
        default=300,
        ge=0,
        description="Age of the heartbeat above which the process exits; 0 means never.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Format of the log lines: text or json."
    )
    log_questions: bool = Field(default=False, description="Write questions to the log.")
    trace_endpoint: str | None = Field(
        default=None, description="OTLP/HTTP address for traces; needs the extra tosa-vqa[otel]."
    )

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, value: str) -> str:
        if value not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}")
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if value in ("cpu", "cuda"):
            return value
        import torch

        try:
            torch.device(value)
        except RuntimeError:
            message = "device must be one that torch knows, such as cpu or cuda; for several, set device_map"
            raise ValueError(message) from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _known_origins(cls, value: str | None) -> str | None:
        for origin in _split(value):
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ValueError(
                    "an origin is scheme://host or scheme://host:port without a path, such as https://a.example"
                )
        return value

    @field_validator("device_memory_gib")
    @classmethod
    def _known_sizes(cls, value: str | None) -> str | None:
        for part in _listed(value):
            if not SIZE.fullmatch(part):
                raise ValueError("name devices with GiB, such as cuda:0=20,cuda:1=40")
        return value

    @field_validator("language_urls")
    @classmethod
    def _known_urls(cls, value: str | None) -> str | None:
        for url in _listed(value):
            if not URL.fullmatch(url):  # which may hold a password: it is not repeated
                raise ValueError(
                    "an address is http://host:port or https://host:port, without user, password and query; "
                    "separate several by commas"
                )
        return value

    @field_validator("language_api_key")
    @classmethod
    def _sendable_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]{1,512}", value.get_secret_value()):
            raise ValueError("a key is printed ASCII without spaces, at most 512 characters")
        return value

    @model_validator(mode="after")
    def _servers_if_vllm(self) -> Self:
        if (self.language == "vllm") != bool(self.language_addresses):
            raise ValueError("language=vllm and language_urls go together: set both or none of them")
        return self

    @model_validator(mode="after")
    def _one_device_if_vllm(self) -> Self:
        if self.language == "vllm" and self.device_map != "none":
            raise ValueError(
                "with language=vllm no language model is here to divide: leave device_map at none"
            )
        return self

    @property
    def device_memory(self) -> dict[str, float] | None:
        """Return the memory for weights by device, in bytes; None where it was not said."""
        sizes = (part.split("=") for part in _listed(self.device_memory_gib))
        return {name: float(size) * 2**30 for name, size in sizes} or None

    @property
    def language_addresses(self) -> tuple[str, ...]:
        """Return the addresses of the language servers, each once."""
        return tuple(dict.fromkeys(url.rstrip("/") for url in _listed(self.language_urls)))

    @property
    def max_body_bytes(self) -> int:
        """Return the body limit in bytes."""
        return int(self.max_body_mib * 2**20)

    @property
    def max_arriving_bytes(self) -> int:
        """Return the memory for arriving bodies in bytes, at least one body."""
        return max(self.max_body_bytes, int(self.max_arriving_mib * 2**20))

    @property
    def origins(self) -> tuple[str, ...]:
        """Return the web origins whose pages may ask."""
        return _split(self.cors_origins)

    @property
    def depth_cache_bytes(self) -> int:
        """Return the memory for estimated depth maps in bytes."""
        return int(self.depth_cache_mib * 2**20)

    @property
    def frame_cache_bytes(self) -> int:
        """Return the memory for encoded frames in bytes."""
        return int(self.frame_cache_mib * 2**20)

    @property
    def key_episodes_bytes(self) -> int:
        """Return the memory for the episodes of one key in bytes."""
        return int(self.key_episodes_mib * 2**20)

    @property
    def estimates_depth(self) -> bool:
        """Return whether depth is estimated where none is sent."""
        return self.depth_model != "none"

    @property
    def torch_dtype(self) -> torch.dtype | Literal["auto"]:
        """Return the dtype as torch knows it, or "auto"."""
        if self.dtype == "auto":
            return "auto"
        import torch

        return getattr(torch, self.dtype)


def _split(origins: str | None) -> tuple[str, ...]:
    return tuple(one.lower() for one in _listed(origins))


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(one.strip() for one in (text or "").split(",") if one.strip())
