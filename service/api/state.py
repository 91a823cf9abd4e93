"""The state of one process: settings, engine, keys, telemetry, and their startup and shutdown."""

import asyncio
import logging
from collections.abc import Callable
from time import time
from typing import Literal

from depth.estimate import EstimatorError
from service.api.arrivals import Arrivals
from service.api.origins import Origins
from service.api.request_context import RequestContext
from service.budgets import Budgets
from service.engine.engine import Engine
from service.engine.warmup import warm_up
from service.episodes.store import EpisodeStore
from service.errors import ServiceError
from service.keys import KeyRing
from service.pipeline.calibration import CalibrationError
from service.pipeline.models import Models, load_models
from service.settings import Settings
from service.telemetry import Telemetry
from vlm import VlmError
from vlm.dtypes import short

log = logging.getLogger("tosa_vqa")

STALLED, UNUSABLE = 70, 1  # exit codes: internal software error of sysexits.h; a model that cannot be loaded


class ServiceState:
    """Hold the state that all requests of this process share.

    `end_process` is called with an exit code when the process cannot go on, `on_ready` once when the models
    are warm; the server sets both.
    """

    def __init__(self, settings: Settings, end_process: Callable[[int], None] = lambda _: None) -> None:
        self.settings = settings
        self.started = int(time())
        self.end_process = end_process
        self.on_ready: Callable[[], None] = lambda: None
        self.open_requests: set[RequestContext] = set()
        self.telemetry = Telemetry(settings)
        self.keys = KeyRing.of(settings)
        self.budgets = Budgets(settings)
        self.origins = Origins(settings.origins)
        self.arrivals = Arrivals(settings.max_arriving, settings.max_arriving_bytes)
        self.telemetry.watch("arriving", "Request bodies that are arriving", lambda: len(self.arrivals))
        self.telemetry.watch(
            "arriving_bytes", "Memory of request bodies that are arriving", lambda: self.arrivals.bytes
        )
        self.episodes = EpisodeStore(settings)
        self.telemetry.watch("episodes", "Episodes in memory", lambda: self.episodes.number)
        self.telemetry.watch("episodes_bytes", "Memory of episodes", lambda: self.episodes.bytes)
        self.engine = Engine(settings, self.telemetry, self._on_death)
        self._status: Literal["loading", "ready", "draining", "failed"] = "loading"
        self._models: Models | None = None

    @property
    def status(self) -> Literal["loading", "ready", "draining", "failed", "stalled"]:
        """Return the status; stalled: the model thread's heartbeat is older than `stall_timeout_s`."""
        is_silent = self.engine.model_thread.heartbeat_age_s > self.settings.stall_timeout_s
        return "stalled" if self._status == "ready" and is_silent else self._status

    async def load(self) -> None:
        """Load and warm the models, then accept requests; on failure log the reason and end the process."""
        try:
            models = await self.engine.load(load_and_warm_up, self.settings)
            await self.engine.load(self.engine.use, models)
        except Exception as error:
            names = {EstimatorError: "depth estimator", CalibrationError: "calibration"}
            what = names.get(type(error), "model")
            is_expected = isinstance(error, VlmError | EstimatorError | CalibrationError)
            log.error("the %s could not be loaded: %s", what, error, exc_info=None if is_expected else error)
            self._status = "failed"
            self.end_process(UNUSABLE)
            return
        self._models = models
        self.telemetry.loaded(short(models.vlm.dtype))
        self.on_ready()
        if self._status == "loading":
            self._status = "ready"

    async def watch(self) -> None:
        """End the process once the model thread's heartbeat is older than `stall_exit_s`."""
        limit = self.settings.stall_exit_s
        while limit:
            await asyncio.sleep(min(1.0, limit / 4))
            if self._models is not None and self.engine.model_thread.heartbeat_age_s > limit:
                log.critical("the model thread has had no heartbeat for %.0f s", limit)
                self._status = "failed"
                self.end_process(STALLED)
                return

    def drain(self) -> None:
        """Report not ready at once, and refuse requests after `drain_pause_s`. Event loop only."""
        if self._status != "failed":
            self._status = "draining"
        asyncio.get_running_loop().call_later(self.settings.drain_pause_s, self.engine.admission.close)

    def abort_open_requests(self) -> None:
        """Abort every open request with `draining`, after the drain timeout. Event loop only."""
        self.engine.admission.close()
        for context in list(self.open_requests):
            context.cancel("shutdown")

    def models(self) -> Models:
        """Return the warm models. Raises ServiceError (not_ready) before they are loaded."""
        if self._models is None or self._status == "failed":
            reason = "failed" if self._status == "failed" else "loading"
            raise ServiceError("not_ready", reason=reason, retry_after_s=5)
        return self._models

    def check_ready(self) -> None:
        """Raise ServiceError unless the process accepts requests."""
        match self.status:
            case "draining":
                raise ServiceError("draining", retry_after_s=1)
            case "stalled":
                raise ServiceError("not_ready", reason="stalled", retry_after_s=5)
            case _:
                self.models()
                self.engine.check_language()

    @property
    def is_lost(self) -> bool:
        """Return whether to replace this process: it failed, or its heartbeat exceeds `stall_exit_s`."""
        limit = self.settings.stall_exit_s
        return self._status == "failed" or bool(limit and self.engine.model_thread.heartbeat_age_s > limit)

    def close(self, timeout_s: float | None = None) -> bool:
        """End all threads; return whether they have ended."""
        has_ended = self.engine.close(timeout_s)
        self.telemetry.close()
        return has_ended

    def _on_death(self, error: BaseException) -> None:
        self._status = "failed"
        self.end_process(STALLED)


def load_and_warm_up(settings: Settings) -> Models:
    """Load the models and run every method once, so that no request pays for one-time work."""
    models = load_models(settings)
    warm_up(models, settings)
    return models
