"""The one error of this service: a code of the fixed table, and what may be shown with it.

Light on purpose: commands that load no model import it.
"""

from collections.abc import Sequence
from typing import Any

from depth import DepthError
from depth.presets import KINDS, PRESET_NAMES
from service.error_table import ERRORS, REASONS

_DEPTH_CHOICES = {"preset": PRESET_NAMES, "kind": KINDS}


class ApiError(Exception):
    """Refuse a request with a code of ERRORS; the rest is optional and safe to show to a client.

    `hint` is one more sentence of our own, where the table cannot know it.
    """

    def __init__(
        self,
        code: str,
        *,
        reason: str = "",
        field: str | None = None,
        choices: Sequence[str] | None = None,
        limit: float | None = None,
        hint: str = "",
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(code)
        self.kind = ERRORS[code]
        self.code, self.field, self.choices, self.limit = code, field, choices, limit
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self.message = " ".join(filter(None, (REASONS.get((code, reason), self.kind.message), hint)))

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON body; `field`, `choices` and `limit` are left out where they say nothing."""
        error = {
            "code": self.code,
            "message": self.message,
            "request_id": request_id,
            "field": self.field,
            "choices": None if self.choices is None else list(self.choices),
            "limit": self.limit,
        }
        return {"error": {key: value for key, value in error.items() if value is not None}}


def from_depth(error: DepthError) -> ApiError:
    """Translate a refusal of depth/, whose sentences are in the table."""
    choices = _DEPTH_CHOICES.get(error.reason)
    return ApiError(error.code, reason=error.reason, field=error.field, choices=choices)
