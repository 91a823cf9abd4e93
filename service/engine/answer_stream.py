"""The answers of one job while they are decoded: text up to a stop sequence, and the probabilities in it."""

from __future__ import annotations

from collections.abc import Callable

from service.engine.jobs import Job
from service.engine.stop_sequences import StopSequences, truncate_at_stop
from service.errors import ServiceError
from service.pipeline.prepare import Written
from vlm import GeneratedSequence, IncrementalDetokenizer, TokenLogprob, Vlm, answer_text, unspellable


class JobAnswers:
    """Listen to a language engine for a job and collect its answers; one that cannot be given fails the job.

    finish: called with all answers, in order, and the length of the prompt, once they are there.
    """

    def __init__(self, job: Job, vlm: Vlm, finish: Callable[[tuple[Written, ...], int], None]) -> None:
        self._job, self._vlm, self._finish = job, vlm, finish
        self._streams = [AnswerStream(job, choice, vlm) for choice in range(job.choices)]
        self._tokens = [0] * job.choices
        self._written: dict[int, Written] = {}
        self._is_read = False

    @property
    def is_open(self) -> bool:
        """Return whether the job is unanswered and its request is active."""
        return self._job.is_open

    @property
    def needs_tokens(self) -> bool:
        """Return whether a stop sequence may end the answer at any token, or each has its probability."""
        params = self._job.prepared.params
        return bool(self._job.stop) or any(one.top_logprobs is not None for one in params)

    def on_close(self, call: Callable[[], None]) -> None:
        """Have a function called once the job has failed or was cancelled."""
        self._job.answer.add_done_callback(
            lambda answer: call() if answer.cancelled() or answer.exception() is not None else None
        )

    def accepted(self) -> None:
        """Mark the end of the wait for a language engine."""
        if not self._is_read:
            self._job.timer.mark("language_queue")

    def read(self) -> None:
        """Mark the end of reading the prompt, once for all answers."""
        if self._is_read:
            return
        self._is_read = True
        self._job.timer.mark("prefill")
        self._job.costs.tokens = max(self._job.costs.tokens, self._job.prepared.prompt.shape[1])

    def waited(self, seconds: float) -> None:
        """Count a part of the time of reading as waiting."""
        self._job.timer.move("prefill", "language_queue", seconds)

    def take(self, choice: int, row: GeneratedSequence) -> bool:
        """Take what is new of an answer; return True if a stop sequence ends it."""
        self._tokens[choice] = len(row.token_ids)
        self._job.costs.tokens = max(self._job.costs.tokens, row.prompt_tokens + sum(self._tokens))
        stream = self._streams[choice]
        has_stopped = stream.push(row)
        if row.finish_reason == "non_finite":
            self._job.fail(ServiceError("numerical_error"))
        elif row.finish_reason == "unspellable":
            error = unspellable()
            error.field = self._job.prepared.schema_field
            self._job.fail(error)
        elif has_stopped or row.finish_reason is not None:
            self._written[choice] = stream.finish(row)
        self._finish_if_whole(row.prompt_tokens)
        return has_stopped

    def may_repeat(self, choice: int) -> bool:
        """Return whether nothing of an answer was sent, and somebody waits for it."""
        return choice not in self._job.sent and self.is_open

    def repeat(self, choice: int) -> None:
        """Begin an answer anew."""
        self._streams[choice] = AnswerStream(self._job, choice, self._vlm)
        self._tokens[choice] = 0

    def fail(self, error: Exception) -> None:
        """Fail the job."""
        self._job.fail(error)

    def _finish_if_whole(self, prompt_tokens: int) -> None:
        if len(self._written) == len(self._streams):
            whole = tuple(self._written[choice] for choice in range(len(self._streams)))
            self._finish(whole, prompt_tokens)


class AnswerStream:
    """Follow one answer of a job, and pass its pieces on if the job streams."""

    def __init__(self, job: Job, choice: int, vlm: Vlm) -> None:
        self._job, self._choice, self._vlm = job, choice, vlm
        self._text = IncrementalDetokenizer(vlm)
        self._stops = StopSequences(job.stop)
        self._read, self._shown = "", ""
        self._starts: list[int] = []  # where the text of every token begins
        self._is_followed = job.on_piece is not None or bool(job.stop)

    def push(self, row: GeneratedSequence) -> bool:
        """Take the new tokens of a row; return True once a stop sequence was found."""
        if not self._is_followed:
            return False
        known = len(self._starts)
        self._starts += [len(self._read)] * (len(row.token_ids) - known)
        if row.guided_text is None:
            new = self._text.push(row.token_ids[known:])
        else:
            new = row.guided_text[len(self._read) :]
        self._read += new
        self._shown += self._stops.push(new)
        self._job.send(self._choice, self._shown, self._logprobs(row, self._shown))
        return self._stops.is_hit

    def finish(self, row: GeneratedSequence) -> Written:
        """Return the whole answer, after passing on the rest of it."""
        whole = answer_text(self._vlm, row.token_ids) if row.guided_text is None else row.guided_text
        text, is_stopped = truncate_at_stop(whole, self._job.stop)
        logprobs = self._logprobs(row, text) if is_stopped else row.logprobs
        self._job.send(self._choice, text, logprobs)
        reports = self._job.prepared.params[self._choice].top_logprobs is not None
        return Written(
            text,
            len(row.token_ids),
            "length" if row.finish_reason == "length" and not is_stopped else "stop",
            tuple(logprobs) if reports else None,
            tuple(row.token_ids),
        )

    def _logprobs(self, row: GeneratedSequence, text: str) -> list[TokenLogprob]:
        """Return the probabilities of the tokens that begin inside a text."""
        pairs = zip(row.logprobs, self._starts, strict=False)
        return [logprob for logprob, start in pairs if start < len(text)]
