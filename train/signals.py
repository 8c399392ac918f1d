"""Signal handling: a run stops after its current step, and worker processes outlive the signal until then."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .parent import Parent, silence_without

# SIGUSR1 is for batch systems whose launchers, on SIGTERM, kill the ranks after a short while.
# SIGHUP tells that the terminal is gone.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
# From prctl.h of Linux.
_PR_SET_PDEATHSIG = 1
# Variable that tells ranks the id of the process that started them.
LAUNCHER = "CODECTOK_LAUNCHER"
# Interval at which a worker process checks that its parent is alive.
PARENT_SECONDS = 1.0


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP set instead of interrupting.

    A second Ctrl-C interrupts. `nohup` keeps ignoring SIGHUP.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def stop(number: int, _: FrameType | None) -> None:
        # Batch systems and launchers may send the same SIGTERM several times, so only Ctrl-C interrupts.
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS if number not in ignored}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminate_with_parent() -> None:
    """Ask Linux to send SIGTERM when the launcher dies (PR_SET_PDEATHSIG).

    Ranks run in separate sessions and would otherwise keep training beside the ranks of the next start. A rank whose
    launcher died before this call ends at once.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    launcher = os.environ.get(LAUNCHER)
    if launcher is not None and os.getppid() != int(launcher):
        os._exit(128 + signal.SIGTERM)


def ignore_stop_signals() -> None:
    """Ignore stop signals in a worker process, whose batches are needed until the run has stopped.

    Ctrl-C in a terminal, batch systems and `timeout` signal all processes of a run at once. Afterwards only two events
    end this process: a SIGTERM from its parent, which is how multiprocessing ends its daemons, and the parent's death,
    after which it is silent.
    """
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere the sender of a signal is unknown, so any SIGTERM ends this process
        # A Python handler would not run during a read that hangs; a thread can end the process at any time.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        parent = Parent()
        silence_without(parent)
        threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: Parent) -> None:
    """Exit on the parent's SIGTERM or when it dies."""
    # A killed parent sends no signal, and the pipe to it fills up: without this check a worker would block forever.
    while not parent.is_gone():
        found = signal.sigtimedwait([signal.SIGTERM], PARENT_SECONDS)
        if found is not None and found.si_pid == parent.pid:
            break
    os._exit(0)
