"""A request that is ready for the model thread, and the future that receives its answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.budgets import Costs
from service.errors import ServiceError
from service.pipeline.prepare import Inferred, Prepared
from service.timing import StageTimer
from vlm import TokenLogprob


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


@dataclass(frozen=True)
class Piece:
    """Hold a piece of one of the answers, with the probabilities of its tokens if they were asked for."""

    choice: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass
class Sent:
    """Hold what of one answer was already passed on; a batch that runs again does not send it twice."""

    text: str = ""
    logprobs: int = 0


@dataclass(eq=False)
class Job:
    """Hold one question for the thread that works on it, which alone touches it until `answer` is done.

    That is the model thread, and behind it the thread of the language servers, if there are some. stop: texts
    that end an answer, which is truncated before the first of them. on_piece: called in that thread with
    every piece of an answer as soon as it is final. traces: asks for the groups of every layer instead of an
    answer.
    """

    prepared: Prepared
    timer: StageTimer
    waiter: Waiter = field(default_factory=NoDeadline)
    stop: tuple[str, ...] = ()
    on_piece: Callable[[Piece], None] | None = None
    answer: Future[Inferred] = field(default_factory=Future)
    costs: Costs = field(default_factory=Costs)
    traces: bool = False
    waits: bool = False  # in a queue, or for the other half of a batch that failed
    was_looked_up: bool = False  # its frames, so that they count once
    ran_encoder: bool = False
    sent: dict[int, Sent] = field(default_factory=dict)  # by choice

    @property
    def is_open(self) -> bool:
        """Return whether the job is unanswered and its request is active."""
        return self.waiter.is_active and not self.answer.done()

    @property
    def group(self) -> Hashable:
        """Jobs of one group may share a forward; what is encoded already does not wait for what is not.

        A job that traces shares with nobody.
        """
        return self.prepared.spec, self.prepared.is_encoded, self if self.traces else None

    @property
    def images(self) -> int:
        """Count the images, the frames of videos among them."""
        return self.prepared.images

    @property
    def choices(self) -> int:
        """Count the answers."""
        return len(self.prepared.params)

    @property
    def weight(self) -> int:
        """Return how much of a batch the job takes: its images, or its answers if these are more."""
        return max(self.images, self.choices)

    def start(self) -> None:
        """Mark the end of the time in the queue."""
        if self.waits:
            self.timer.mark("queue")
        self.waits, self.waiter.where = False, "model"

    def send(self, choice: int, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        """Pass on what is new of an answer; a batch that runs again repeats its beginning."""
        if self.on_piece is None:
            return
        sent = self.sent.setdefault(choice, Sent())
        if sent.text.startswith(text) and len(logprobs) <= sent.logprobs:
            return
        if not text.startswith(sent.text):  # low precision; sent text stays sent
            self.fail(ServiceError("internal"))
            return
        self.on_piece(Piece(choice, text[len(sent.text) :], tuple(logprobs[sent.logprobs :])))
        self.sent[choice] = Sent(text, len(logprobs))

    def succeed(self, inferred: Inferred) -> None:
        """Set the answer, unless the future is already done."""
        with suppress(InvalidStateError):
            self.answer.set_result(inferred)

    def fail(self, error: Exception) -> None:
        """Set an error, unless the future is already done."""
        with suppress(InvalidStateError):
            self.answer.set_exception(error)
