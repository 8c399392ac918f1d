"""Signals that end a run after the step that it is in."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SIGUSR1: for batch systems in front of launchers that take SIGTERM for the order to kill ranks soon.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# Of Linux, from prctl.h.
_PR_SET_PDEATHSIG = 1
# How often a process that works for a run looks whether that is still there.
PARENT_SECONDS = 1.0


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM or SIGUSR1 sets, instead of breaking into a step; a second Ctrl-C breaks in."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def stop(number: int, _: FrameType | None) -> None:
        # Batch systems and launchers pass the same SIGTERM on more than once.
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_with_the_parent() -> None:
    """Let the end of the parent, a launcher that was killed, be a SIGTERM to this process, where there is such a thing.

    Ranks have sessions of their own: left behind they would train on beside those of the next start.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def leave_signals_to_the_run() -> None:
    """Let this process, which works for a run, ignore what stops that: it is still to bring what the last step needs.

    Ctrl-C in a terminal, batch systems and `timeout` reach all processes of a run at once. Only a SIGTERM of the
    parent's ends this process, as multiprocessing does it to its daemons, for which it waits before a program ends;
    and so does the parent's end, however that came.
    """
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere nothing says who has sent a signal, and it ends this process
        # A handler in Python would wait for a read that hangs; a thread ends the process in the middle of it.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        parent = multiprocessing.parent_process()
        assert parent is not None, "multiprocessing has started it"
        threading.Thread(target=_end_with_the_parent, args=(parent.pid, os.getppid()), daemon=True).start()


def _end_with_the_parent(parent: int | None, creator: int) -> None:
    """Wait for their end or the parent's SIGTERM; `creator` is another process where a server forks for the parent."""
    # A parent that was killed says nothing; what is sent to it then fills a pipe that nobody reads, and waits for ever.
    while os.getppid() == creator:
        found = signal.sigtimedwait([signal.SIGTERM], PARENT_SECONDS)
        if found is not None and found.si_pid == parent:
            break
    os._exit(0)
