"""A request that is ready for the model thread, and the future that receives its answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.budgets import Costs
from service.errors import ServiceError
from service.pipeline.prepare import Inferred, Prepared
from service.timing import StageTimer


class RequestCancelled(Exception):
    """Stop work whose request was cancelled."""


class Waiter(Protocol):
    """The owner of a job: a service.api.request_context.RequestContext, or the command line."""

    where: Any

    @property
    def is_active(self) -> bool: ...


class NoDeadline:
    """Wait without a deadline, for a job that is in no queue."""

    where = "model"
    is_active = True


@dataclass(eq=False)
class Job:
    """Hold one question for the model thread, which alone touches it until `answer` is done.

    stop: texts that end the answer, which is truncated before the first of them. on_text: called in the model
    thread with every piece of the answer's text as soon as it is final.
    """

    prepared: Prepared
    timer: StageTimer
    waiter: Waiter = field(default_factory=NoDeadline)
    stop: tuple[str, ...] = ()
    on_text: Callable[[str], None] | None = None
    answer: Future[Inferred] = field(default_factory=Future)
    costs: Costs = field(default_factory=Costs)
    waits: bool = False  # in a queue, or for the other half of a batch that failed
    was_looked_up: bool = False  # its frames, so that they count once
    ran_encoder: bool = False
    sent_text: str = ""  # already passed to on_text; a batch that runs again does not send it twice

    @property
    def is_open(self) -> bool:
        """Return whether the job is unanswered and its request is active."""
        return self.waiter.is_active and not self.answer.done()

    @property
    def group(self) -> Hashable:
        """Jobs of one group may share a forward; what is encoded already does not wait for what is not."""
        return self.prepared.plan, self.prepared.is_encoded

    @property
    def images(self) -> int:
        """Count the images."""
        return len(self.prepared.frames)

    def start(self) -> None:
        """Mark the end of the time in the queue."""
        if self.waits:
            self.timer.mark("queue")
        self.waits, self.waiter.where = False, "model"

    def send(self, text: str) -> None:
        """Pass new text to `on_text`; a batch that runs again repeats the beginning, which is skipped."""
        if self.on_text is None or self.sent_text.startswith(text):
            return
        if not text.startswith(self.sent_text):  # low precision; sent text stays sent
            self.fail(ServiceError("internal"))
            return
        self.on_text(text[len(self.sent_text) :])
        self.sent_text = text

    def succeed(self, inferred: Inferred) -> None:
        """Set the answer, unless the future is already done."""
        with suppress(InvalidStateError):
            self.answer.set_result(inferred)

    def fail(self, error: Exception) -> None:
        """Set an error, unless the future is already done."""
        with suppress(InvalidStateError):
            self.answer.set_exception(error)
