"""The one interface of everything that reads prompts and writes answers.

An engine gets prompts with their visual tokens, and tells each prompt's listener what becomes of it: tokens,
or an error. Batches, deadlines, streams and stop sequences are the business of the listener.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from vlm import GeneratedSequence, GenerationParams, Visual


class Listener(Protocol):
    """Hear how one prompt is answered. One thread at a time calls it, but `is_open` any thread."""

    @property
    def is_open(self) -> bool:
        """Return whether somebody still waits for the answers."""
        ...

    @property
    def needs_tokens(self) -> bool:
        """Return whether every token has to be heard by itself: for stop sequences and probabilities."""
        ...

    def on_close(self, call: Callable[[], None]) -> None:
        """Have a function called once nobody waits any more for answers that are missing; in any thread."""
        ...

    def accepted(self) -> None:
        """Hear that the prompt no longer waits, but is about to be read."""
        ...

    def read(self) -> None:
        """Hear that the prompt has been read."""
        ...

    def waited(self, seconds: float) -> None:
        """Hear afterwards that so much of the time between `accepted` and `read` was waiting too."""
        ...

    def take(self, choice: int, row: GeneratedSequence) -> bool:
        """Hear one answer so far; return True if a stop sequence ends it.

        After every token if it needs them, or else after one or more.
        """
        ...

    def may_repeat(self, choice: int) -> bool:
        """Return whether an answer can begin anew, as nothing of it was passed on."""
        ...

    def repeat(self, choice: int) -> None:
        """Forget what was heard of an answer, which begins anew."""
        ...

    def fail(self, error: Exception) -> None:
        """Hear that there will be no answer."""
        ...


@dataclass(frozen=True, eq=False)
class Reading:
    """Hold a prompt to read, how each of its answers is written, and who hears of them.

    prompt: ids [1, T] on the CPU. visuals: for its placeholders, in order. affinity: the same for prompts
    that begin with the same picture. salt: prompts of different salts may share no cache; None: as they like.
    """

    prompt: Tensor
    visuals: tuple[Visual, ...]
    params: tuple[GenerationParams, ...]
    listener: Listener
    affinity: bytes = b""
    salt: str | None = None


class LanguageEngine(Protocol):
    """Read prompts and write their answers."""

    @property
    def is_here(self) -> bool:
        """Return whether it works in the model thread, so that answers are there when `begin` has ended."""
        ...

    def why_no_grammar(self, with_logprobs: bool) -> str | None:
        """Return why an answer cannot be kept inside a grammar now, None if it can; any thread.

        As a reason of the error language_unsupported. with_logprobs: its probabilities are asked for too.
        """
        ...

    @property
    def running(self) -> int:
        """Count the prompts that are worked on beyond `begin`."""
        ...

    def begin(self, readings: Sequence[Reading]) -> Iterator[None]:
        """Read prompts together and write their answers, in steps; model thread only.

        An engine of this process raises what its model raises, and the prompts may then begin anew. Any other
        raises only before it has begun, and ends without waiting for the answers.
        """
        ...

    def check(self, prompt_tokens: int = 0) -> None:
        """Refuse a prompt of this length that cannot be answered now; any thread.

        Raises ServiceError if nothing could read it, VlmError (prompt_too_long) if no room is left.
        """
        ...

    def close(self, timeout_s: float | None = None) -> bool:
        """Let go of every prompt and end all threads; return whether they have ended."""
        ...


class LanguageObserver(Protocol):
    """Receive what becomes of prompts at language servers; service.telemetry.Telemetry."""

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None: ...
    def language_ended(self, outcome: str, prompt_tokens: int, cached_tokens: int | None) -> None: ...
