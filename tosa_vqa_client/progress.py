"""How far a request is, for callers that show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Progress:
    """Say what a request does now.

    stage: sending, the body is on its way; waiting, it was sent, and the service works; retrying, the service
    or the connection failed and it is tried again in `wait_s` seconds, because of `reason`. attempt: from 1.
    """

    stage: Literal["sending", "waiting", "retrying"]
    attempt: int
    sent_bytes: int = 0
    total_bytes: int = 0
    wait_s: float = 0.0
    reason: str = ""


OnProgress = Callable[[Progress], None]
