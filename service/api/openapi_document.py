"""The OpenAPI document of the application: what FastAPI derives, and how keys are sent."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

SCHEMES: dict[str, dict[str, str]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, as clients of OpenAI send it.",
    },
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}
FREE = ("/", "/methods", "/livez", "/readyz")
"""Addresses that answer without a key, whatever the settings."""


class Documented(FastAPI):
    """Say in the document which operations want a key; `needs_key`: without one they are refused."""

    needs_key = False

    def openapi(self) -> dict[str, Any]:
        """Return the document, made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            document.setdefault("components", {})["securitySchemes"] = SCHEMES
            wanted: list[dict[str, list[str]]] = [{name: []} for name in SCHEMES]
            for path, operations in document["paths"].items():
                for operation in operations.values() if path not in FREE else ():
                    operation["security"] = wanted if self.needs_key else [*wanted, {}]
        return self.openapi_schema or {}
