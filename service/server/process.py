"""How a process takes signals and ends, whatever its threads do. Imports only the standard library."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """Let a signal end the process at once, with code 0, until a server takes the signals over.

    Without this, the first process of a container ignores SIGTERM while it imports.
    """
    with handled(lambda *_: os._exit(0)):
        yield


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle signals so, where that is possible: only the main thread may say how."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, handler) for one in SIGNALS}
    try:
        yield
    finally:
        for one, earlier in before.items():
            signal.signal(one, earlier)


def exit_process(code: int) -> NoReturn:
    """End the process now. To take an interpreter with torch apart would last longer than to drain."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end_within(seconds: float, code: int) -> None:
    """End the process in this time, even if a thread cannot be joined or the event loop hangs."""
    last = threading.Timer(seconds, os._exit, (code,))
    last.daemon = True
    last.start()
