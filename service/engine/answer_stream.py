"""The answers of one job while they are decoded: text up to a stop sequence, and the probabilities in it."""

from __future__ import annotations

from service.engine.jobs import Job
from service.engine.stop_sequences import StopSequences, truncate_at_stop
from service.errors import ServiceError
from service.pipeline.prepare import Written
from vlm import GeneratedSequence, IncrementalDetokenizer, TokenLogprob, Vlm, answer_text, unspellable


class JobAnswers:
    """Collect the answers of a job; one that cannot be given fails the job."""

    def __init__(self, job: Job, vlm: Vlm) -> None:
        self._job = job
        self._streams = [AnswerStream(job, choice, vlm) for choice in range(job.choices)]
        self._tokens = [0] * job.choices
        self._written: dict[int, Written] = {}

    @property
    def whole(self) -> tuple[Written, ...] | None:
        """Return the answers in order, None while one is missing."""
        if len(self._written) < len(self._streams):
            return None
        return tuple(self._written[choice] for choice in range(len(self._streams)))

    def take(self, choice: int, row: GeneratedSequence) -> bool:
        """Take one step of an answer; return True if a stop sequence ends it."""
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
        return has_stopped


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
        )

    def _logprobs(self, row: GeneratedSequence, text: str) -> list[TokenLogprob]:
        """Return the probabilities of the tokens that begin inside a text."""
        pairs = zip(row.logprobs, self._starts, strict=False)
        return [logprob for logprob, start in pairs if start < len(text)]
