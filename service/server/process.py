"""Signals, and how a process exits whatever its threads do. Imports only the standard library."""

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
    """Install a signal handler; does nothing outside the main thread, which alone may install one."""
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
    """Exit the process now; finalising an interpreter with torch takes longer than draining."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end_within(seconds: float, code: int) -> None:
    """Exit the process after `seconds`, even if a thread cannot be joined or the event loop hangs."""
    last = threading.Timer(seconds, os._exit, (code,))
    last.daemon = True
    last.start()
