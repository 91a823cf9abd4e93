"""From an HTTP response to a result or an error; and the events of a stream."""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeVar

import httpx

from tosa_vqa_client.errors import BadResponse, ServiceError
from tosa_vqa_client.reading import read
from tosa_vqa_client.results import Answer, Refusal

Result = TypeVar("Result")
_SHOWN_CHARS = 200


def result_of(kind: type[Result], response: httpx.Response) -> Result:
    """Return what the service answered. Raises ServiceError, BadResponse."""
    raise_refusal(response)
    return _read(kind, _json(response.text, response.status_code), response.status_code)


def raise_refusal(response: httpx.Response) -> None:
    """Raise ServiceError for a refusal of the service, BadResponse for any other response but success."""
    if not response.is_success:
        _refuse(_json_or_none(response.text), response.text, response.status_code, _retry_after_s(response))


class Events:
    """Read server-sent events line by line: pieces of the text, and the whole answer at the end."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self._name, self._data = "", ""

    def feed(self, line: str) -> str | None:
        """Read a line; return a piece of the answer if one is complete. Raises ServiceError, BadResponse."""
        if line:
            field, _, value = line.partition(": ")
            if field == "event":
                self._name = value
            elif field == "data":
                self._data += value
            return None
        name, data, self._name, self._data = self._name, self._data, "", ""
        return self._event(name, data) if data else None

    def whole(self) -> Answer:
        """Return the answer after the last line. Raises BadResponse if the stream ended without it."""
        if self.answer is None:
            raise BadResponse("the stream ended before the answer was whole: ask again", 200)
        return self.answer

    def _event(self, name: str, data: str) -> str | None:
        value = _json(data, 200)
        match name:
            case "text":
                return str(value.get("text", ""))
            case "answer":
                self.answer = _read(Answer, value, 200)
            case "error":
                _refuse(value, data, 200, None)
        return None


def _refuse(value: Any, text: str, status: int, retry_after_s: float | None) -> NoReturn:
    try:
        refusal = read(Refusal, value["error"])
    except (ValueError, TypeError, KeyError):
        shown = " ".join(text[:_SHOWN_CHARS].split())
        raise BadResponse(
            f"HTTP {status}, which is no answer of tosa-vqa: {shown}", status, retry_after_s
        ) from None
    raise ServiceError(refusal, status, retry_after_s)


def _read(kind: type[Result], value: Any, status: int) -> Result:
    try:
        return read(kind, value)
    except ValueError as error:
        raise BadResponse(f"this client does not understand the answer: {error}", status) from None


def _json(text: str, status: int) -> Any:
    value = _json_or_none(text)
    if not isinstance(value, dict):
        shown = " ".join(text[:_SHOWN_CHARS].split())
        raise BadResponse(f"HTTP {status} without a JSON object: {shown}", status)
    return value


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _retry_after_s(response: httpx.Response) -> float | None:
    """Return the seconds of Retry-After, None for a date or none."""
    given = response.headers.get("retry-after", "")
    return float(given) if given.isdecimal() else None
