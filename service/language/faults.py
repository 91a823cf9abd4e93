"""What can go wrong with a language server, each with a code of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import httpx2

from service.errors import ServiceError

OUT_OF_MEMORY = re.compile(
    r"out of memory|alloc\w* failed|no available memory|kv cache.*(full|exhausted)", re.I
)
MOST_DETAIL = 300
"""Characters of a server's own words that go to the log."""


@dataclass(frozen=True)
class Kind:
    """Say what follows from a fault.

    elsewhere: another server may do better. is_out: the server gets no prompts until it is asked how it is.
    retry_after_s: when the client may try again, None where that is of no use.
    """

    elsewhere: bool = True
    is_out: bool = True
    retry_after_s: int | None = 2


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "language_down": Kind(retry_after_s=5),
        "language_restarting": Kind(retry_after_s=5),
        "language_busy": Kind(is_out=False, retry_after_s=1),
        "language_slow": Kind(is_out=False),
        "language_out_of_memory": Kind(is_out=False),
        "language_cut": Kind(),
        "language_incomplete": Kind(is_out=False, retry_after_s=1),
        "language_failed": Kind(is_out=False),
        "language_garbled": Kind(is_out=False, retry_after_s=None),
        "language_refused": Kind(elsewhere=False, is_out=False, retry_after_s=None),
        "language_key_refused": Kind(retry_after_s=30),
        "language_wrong_model": Kind(retry_after_s=30),
        "language_wrong_weights": Kind(retry_after_s=30),
        "numerical_error": Kind(elsewhere=False, is_out=False, retry_after_s=None),
    }
)


class Fault(Exception):
    """A server did not do what it was asked. detail: for the log; it may hold the server's own words."""

    def __init__(self, code: str, detail: str = "", retry_after_s: int | None = None) -> None:
        super().__init__(code, detail, retry_after_s)
        self.code, self.kind, self._detail = code, KINDS[code], detail
        self._retry_after_s = self.kind.retry_after_s if retry_after_s is None else retry_after_s

    def __str__(self) -> str:
        return f"{self.code}: {self._detail}" if self._detail else self.code

    def again(self) -> Fault:
        """Return the same fault, to be raised: each keeps where it was raised."""
        return Fault(self.code, self._detail, self._retry_after_s)

    def refusal(self) -> ServiceError:
        """Return what the client is told."""
        return ServiceError(self.code, retry_after_s=self._retry_after_s)


class Stale(Fault):
    """A connection broke before the server had accepted the prompt, maybe because it had been idle."""


def of_transport(error: httpx2.HTTPError, has_begun: bool) -> Fault:
    """Name an error of the connection. has_begun: the server had accepted the prompt."""
    detail = type(error).__name__
    if isinstance(error, httpx2.ConnectError):
        return Fault("language_down", detail)
    if isinstance(error, httpx2.TimeoutException):
        return Fault("language_slow", detail)
    if isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError):
        return Fault("language_cut", detail) if has_begun else Stale("language_down", detail)
    return Fault("language_failed", detail)


def of_status(status: int, body: bytes, headers: Mapping[str, str]) -> Fault:
    """Name a response that is no answer."""
    words = _words(body)
    detail = f"HTTP {status} {words}".rstrip()
    if status == 403 and "--enable-scale-out" in words:  # an address that was not switched on
        return Fault("language_refused", detail)
    if status in (401, 403):
        return Fault("language_key_refused", f"HTTP {status}")
    if status == 404:
        return Fault("language_wrong_model", detail)
    if status == 429:
        return Fault("language_busy", detail, _retry_after_s(headers))
    if status < 500:
        return Fault("language_refused", detail)
    if OUT_OF_MEMORY.search(words):
        return Fault("language_out_of_memory", detail)
    if status in (502, 503, 504):
        return Fault("language_restarting", detail, _retry_after_s(headers))
    return Fault("language_failed", detail)


def _retry_after_s(headers: Mapping[str, str]) -> int | None:
    text = headers.get("Retry-After", "")
    return min(int(text), 60) if re.fullmatch(r"\d{1,6}", text) else None


def _words(body: bytes) -> str:
    """Return what an error says, in one line: of vLLM's own form its message, else its beginning."""
    text = body.decode(errors="replace")
    try:
        error = json.loads(text)["error"]
        text = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        pass
    return " ".join(text.split())[:MOST_DETAIL]
