"""Interruption by SIGINT (Ctrl-C), SIGTERM, SIGHUP and SIGUSR1, remembered in case a library swallows the exception."""

from __future__ import annotations

import signal
from types import FrameType

_requested = False


def listen_for_signals() -> None:
    """Raise `KeyboardInterrupt` on SIGINT, SIGTERM, SIGHUP (unless `nohup` ignores it) and SIGUSR1 from now on."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)


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
