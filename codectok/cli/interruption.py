"""Ctrl-C, SIGTERM and SIGUSR1 break into what runs, and are remembered: a library may swallow the exception."""

from __future__ import annotations

import signal
from types import FrameType

_requested = False


def listen_for_signals() -> None:
    """Treat what people and batch systems send alike from now on."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _interrupt)


def is_interrupted() -> bool:
    """Whether a signal has come, whatever became of it then."""
    return _requested


def check_interruption() -> None:
    """Raise `KeyboardInterrupt` if a signal has come, whatever became of it then."""
    if _requested:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _requested
    _requested = True
    raise KeyboardInterrupt
