"""Requests with bodies encoded beforehand, and a sample of measurements for each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bench.load.connection import Response

BOUNDARY = "tosa-vqa-load"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
REFUSALS = (429, 503)
Outcome = Literal["answered", "refused", "failed", "disconnected", "lost"]


@dataclass(frozen=True)
class Request:
    """One HTTP request, a POST if it has a body, of a form if not said; its sample counts under `label`.

    frame_id: the header X-Frame-ID, by which a proxy sends all questions about a frame to one replica.
    """

    path: str
    body: bytes = b""
    label: str = "all"
    content_type: str = FORM_TYPE
    frame_id: str = ""

    @property
    def method(self) -> str:
        return "POST" if self.body else "GET"

    def headers(self, key: str | None = None) -> dict[str, str]:
        """Return the headers beside Host, with the API key if there is one."""
        signed = {} if key is None else {"Authorization": f"Bearer {key}"}
        signed |= {"X-Frame-ID": self.frame_id} if self.frame_id else {}
        if not self.body:
            return signed
        return {"Content-Type": self.content_type, "Content-Length": str(len(self.body)), **signed}


@dataclass(frozen=True)
class Sample:
    """The measurements of one request. Times are perf_counter seconds.

    `status` is None without a whole response: `lost` then says why, unless the client disconnected.
    Latency counts from `due_s`, when the request should have been sent, not from when it was: a slow answer
    must not make the requests behind it look fast (coordinated omission).
    """

    label: str
    due_s: float
    sent_s: float
    ended_s: float
    status: int | None = None
    lost: str | None = None
    response: Response | None = None

    @property
    def latency_ms(self) -> float:
        return (self.ended_s - self.due_s) * 1000

    @property
    def lateness_ms(self) -> float:
        """Return the delay of sending in ms: the scheduling noise of this generator."""
        return (self.sent_s - self.due_s) * 1000

    @property
    def is_answer(self) -> bool:
        return self.status == 200

    @property
    def is_refusal(self) -> bool:
        return self.status in REFUSALS

    @property
    def outcome(self) -> Outcome:
        """Return the outcome; `failed` is any status that is neither an answer nor a refusal."""
        if self.status is None:
            return "disconnected" if self.lost is None else "lost"
        return "answered" if self.is_answer else "refused" if self.is_refusal else "failed"

    def answer(self) -> dict[str, Any]:
        """Return the body of a JSON response, or the last event of a stream; empty if it is neither."""
        if self.response is None:
            return {}
        data = self.response.body
        if self.response.headers.get("content-type", "").startswith("text/event-stream"):
            _, _, data = data.rpartition(b"data:")
        try:
            found = json.loads(data)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def total_ms(self) -> float | None:
        """Return the server's own total in ms, None if it reports none."""
        return self.answer().get("timings_ms", {}).get("total")

    def code(self) -> str:
        """Return the machine-readable code of a refusal or failure, or its status."""
        error = self.answer().get("error")
        code = error.get("code") if isinstance(error, dict) else self.answer().get("code")
        return str(code or self.status)

    def event_moments(self) -> list[float]:
        """Return when each event of a stream was complete, except the last one, which holds the answer."""
        if self.response is None:
            return []
        moments, start, arrivals = [], 0, iter(self.response.arrivals)
        now, here = next(arrivals, (self.ended_s, 0))
        while (end := self.response.body.find(b"\n\n", start)) >= 0:
            while here < end + 2:
                now, here = next(arrivals, (self.ended_s, end + 2))
            moments.append(now)
            start = end + 2
        return moments[:-1]


def form(fields: Mapping[str, object], files: Mapping[str, bytes]) -> bytes:
    """Encode fields and files as the multipart body that FORM_TYPE announces."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for name, data in files.items():
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        parts.append(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + data + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
