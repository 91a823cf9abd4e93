"""What can go wrong: the service refuses, cannot be reached, or is too slow; or the input cannot be sent."""

from __future__ import annotations

from tosa_vqa_client.results import Refusal


class ClientError(Exception):
    """Be the base of every error that a client raises about a request."""


class BadInput(ClientError, ValueError):
    """The request cannot be written: an array of a wrong type, or an empty list. Nothing was sent."""


class ServiceError(ClientError):
    """The service refused a request, and says why; its text also says what to do.

    status: of HTTP. code: the stable name of the refusal. field, choices, limit: as the service names them.
    retry_after_s: when to try again, if it said so.
    """

    def __init__(self, refusal: Refusal, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(_text(refusal))
        self.refusal, self.status, self.retry_after_s = refusal, status, retry_after_s
        self.code, self.message, self.request_id = refusal.code, refusal.message, refusal.request_id
        self.field, self.choices, self.limit = refusal.field, refusal.choices, refusal.limit


class BadResponse(ClientError):
    """What came back is not from the service, or not from one that this client knows.

    status: of HTTP. retry_after_s: when to try again, if a proxy said so.
    """

    def __init__(self, text: str, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_after_s = status, retry_after_s


class ConnectionFailed(ClientError):
    """There was no connection to the service, or it was lost before the answer."""


class DeadlineExceeded(ClientError):
    """The answer was not there in time; `timeout_s` is the time it had, all tries together."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"no answer within {timeout_s:g} s: ask with a longer timeout_s")
        self.timeout_s = timeout_s


def _text(refusal: Refusal) -> str:
    """Write a refusal in one line; field, choices and limit are added where the message lacks them."""
    message = refusal.message
    about = f" ({refusal.field})" if refusal.field and refusal.field not in message else ""
    unnamed = [choice for choice in refusal.choices or () if choice not in message]
    choices = f" Choose from: {', '.join(refusal.choices or ())}." if unnamed else ""
    limit = "" if refusal.limit is None else f"{refusal.limit:.12g}"
    most = "" if limit in message else f" The limit is {limit}."
    return f"{refusal.code}: {message}{about}{choices}{most}"
