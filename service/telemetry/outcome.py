"""The outcome of one request, as plain data."""

from dataclasses import dataclass

from service.pipeline.response_models import VqaResponse
from service.timing import TimingsMs

CLIENT_GONE = "client_gone"


@dataclass(frozen=True)
class RequestOutcome:
    """Hold the outcome of a request with a body, answered or not.

    route: the template, /vqa. status: 499 if the client left, code then client_gone; code None for an answer.
    where: how far it came, one of WHERES. key: name of the API key. answers: several for a comparison.
    timings_ms: stages as far as it came. total_s: from the first byte of the head to the end of the response.
    traceparent: the W3C header, as sent. method: the requested method, for requests without an answer.
    units: what the key was charged.
    """

    route: str
    request_id: str
    status: int
    code: str | None
    where: str
    key: str | None
    answers: tuple[VqaResponse, ...]
    timings_ms: TimingsMs
    total_s: float
    question: str | None
    traceparent: str | None = None
    method: str | None = None
    units: float = 0.0

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the merging methods of the answers, each once; or the requested one, if known."""
        answered = dict.fromkeys(answer.merge.method for answer in self.answers)
        return tuple(answered) or (() if self.method is None else (self.method,))
