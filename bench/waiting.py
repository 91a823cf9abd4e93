"""Wait for what must come."""

import time
from collections.abc import Callable

PATIENCE_S = 120
"""How long to wait for what must come: free when it comes, and busy machines stand still for seconds."""
START_S = 3 * PATIENCE_S
"""The same for a process that first imports torch and loads a model."""


def wait_for(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Wait until something is so. Raises TimeoutError if it does not come."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= end:
            raise TimeoutError("waited in vain")
        time.sleep(0.02)
