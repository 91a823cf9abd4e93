"""The one object a process keeps: settings, threads and the model, which loads in the model thread."""

import io
import logging
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image

from service.engine import Engine
from service.errors import ApiError
from service.pipeline import infer, prepare
from service.schemas import VqaFields, VqaRequest
from service.settings import Settings
from service.timing import StageTimer
from tosa import METHODS
from vlm import Vlm, VlmError, load_vlm

log = logging.getLogger("tosa_vqa")


class ServiceState:
    """Hold what every request of this process shares; only `load` changes it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = Engine(settings.max_queue, settings.decode_threads, settings.num_threads)
        self.status: Literal["loading", "ready", "failed"] = "loading"
        self._vlm: Vlm | None = None

    async def load(self, on_failure: Callable[[], None]) -> None:
        """Load and warm the model, then let requests in; on failure log why and call `on_failure`."""
        try:
            self._vlm = await self.engine.load(load_and_warm_up, self.settings)
        except Exception as error:
            is_expected = isinstance(error, VlmError)
            log.error("the model could not be loaded: %s", error, exc_info=None if is_expected else error)
            self.status = "failed"
            on_failure()
        else:
            self.status = "ready"

    def model(self) -> Vlm:
        """Return the warm model. Raises ApiError while there is none."""
        if self._vlm is None:
            raise ApiError("not_ready", reason=self.status, retry_after_s=5)
        return self._vlm


def load_and_warm_up(settings: Settings) -> Vlm:
    """Load the model and answer a made-up question with each method, so that no real one pays for it."""
    vlm = load_vlm(settings.model, settings.device, settings.torch_dtype)
    for method in METHODS:
        timer = StageTimer()
        prepared = prepare(vlm, _made_up_question(method), settings, timer)
        infer(vlm, prepared, timer)
    return vlm


def _made_up_question(method: str) -> VqaRequest:
    image = _png(np.full((64, 64, 3), 128, dtype=np.uint8))
    depth = _png(np.arange(1, 64 * 64 + 1, dtype=np.uint16).reshape(64, 64))
    fields = VqaFields(question="What is this?", method=method, max_new_tokens=2)
    return VqaRequest(fields, (image,), (depth,))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
