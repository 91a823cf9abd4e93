"""What waits for the model thread: a request that is ready for the model, and where its answer goes."""

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
    """Stop work that nobody waits for any more."""


class Waiter(Protocol):
    """Whoever waits: a service.api.request_context.Call, or the command line."""

    where: Any

    @property
    def is_active(self) -> bool: ...


class NoDeadline:
    """Wait for an answer however long it takes, in no queue."""

    where = "model"
    is_active = True


@dataclass(eq=False)
class Job:
    """Hold one question for the model thread, which alone touches it until `answer` is done.

    stop: texts that end the answer, which is cut before the first of them. on_text: gets every piece of the
    answer's text as soon as it is final, in the model thread.
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
    sent_text: str = ""  # given to on_text, and not to come twice if a batch is run again

    @property
    def is_open(self) -> bool:
        """Say whether the answer is still to be found, and wanted."""
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
        """Note that the waiting is over."""
        if self.waits:
            self.timer.mark("queue")
        self.waits, self.waiter.where = False, "model"

    def send(self, text: str) -> None:
        """Hand on what is new of the text so far; a batch that runs again comes by the same text twice."""
        if self.on_text is None or self.sent_text.startswith(text):
            return
        if not text.startswith(self.sent_text):  # in low precision; what was said cannot be taken back
            self.fail(ServiceError("internal"))
            return
        self.on_text(text[len(self.sent_text) :])
        self.sent_text = text

    def succeed(self, inferred: Inferred) -> None:
        """Deliver the answer, unless nobody waits any more."""
        with suppress(InvalidStateError):
            self.answer.set_result(inferred)

    def fail(self, error: Exception) -> None:
        """Deliver an error, unless nobody waits any more."""
        with suppress(InvalidStateError):
            self.answer.set_exception(error)
