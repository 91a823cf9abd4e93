"""Responses as JSON: where the values of a response become bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel


def json_response(body: BaseModel, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    """Respond with a model; what was not set is left out."""
    return Response(body.model_dump_json(exclude_unset=True), status, headers, "application/json")


def ascii_json(data: BaseModel | Mapping[str, Any]) -> bytes:
    """Encode in ASCII, for a line of a stream: some clients end a line at U+2028 too."""
    plain = data.model_dump(mode="json", exclude_unset=True) if isinstance(data, BaseModel) else data
    return json.dumps(plain, allow_nan=False, separators=(",", ":")).encode()
