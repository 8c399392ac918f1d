"""Interruption by SIGINT (Ctrl-C), SIGTERM, SIGUSR1 and SIGHUP, remembered in case a library swallows the exception."""

from __future__ import annotations

import signal
from types import FrameType

_requested = False


def listen_for_signals() -> None:
    """Raise `KeyboardInterrupt` on SIGINT, SIGTERM, SIGUSR1 and SIGHUP from now on; `nohup` keeps ignoring SIGHUP."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def is_interrupted() -> bool:
    """Return True if a signal arrived, even if a library swallowed its exception."""
    return _requested


def check_interruption() -> None:
    """Raise `KeyboardInterrupt` if a signal arrived, even if a library swallowed its exception."""
    if _requested:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _requested
    _requested = True
    raise KeyboardInterrupt
