"""The one error of this service: a code of the table, one sentence, and the field, limit and choices.

Light on purpose: commands that load no model import it. `translation` makes one of every other error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.errors.naming import named
from service.errors.table import CODES, SENTENCES


class ServiceError(Exception):
    """Refuse a request with a code of CODES; everything in it may be shown to a client.

    `sentence` is the message of a library; without one, the table gives it, for `reason` if there is one. The
    message names the field and the limit. The HTTP status is looked up where the response is written.
    """

    def __init__(
        self,
        code: str,
        *,
        reason: str = "",
        sentence: str | None = None,
        field: str | None = None,
        choices: Sequence[str] | None = None,
        limit: float | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(code)
        self.code, self.field, self.choices, self.limit = code, field, choices, limit
        self.retry_after_s = retry_after_s
        template = SENTENCES.get((code, reason), CODES[code].sentence)
        self.message = named(sentence or template.format(field=field, limit=limit), field, limit)

    def about(self, field: str) -> ServiceError:
        """Return the same refusal of a field that the client calls by another name."""
        message = self.message if self.field is None else self.message.replace(self.field, field)
        return ServiceError(self.code, sentence=message, field=field, choices=self.choices, limit=self.limit)

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON body; `field`, `choices` and `limit` are left out where they are not set."""
        error = {
            "code": self.code,
            "message": self.message,
            "request_id": request_id,
            "field": self.field,
            "choices": None if self.choices is None else list(self.choices),
            "limit": self.limit,
        }
        return {"error": {key: value for key, value in error.items() if value is not None}}
