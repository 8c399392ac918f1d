"""Watches the Ray of this process: its death becomes an error in the main thread, whatever that waits for."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from codectok.errors import PassingError

# A signal to the whole process group reaches Ray as well: the driver's own reaction comes first.
SIGNAL_SECONDS = 1.0
# Ray's calls can wait for a dead GCS for a minute, and cannot be interrupted.
END_SECONDS = 15.0


class LostRayError(PassingError):
    """The Ray of this process has died."""


class RayWatch(ABC):
    """Looks at Ray in a thread, and interrupts the main thread once Ray is lost.

    Args:
        poll_seconds: interval between looks.
        end_seconds: time for the main thread to end after the interruption.
    """

    def __init__(self, poll_seconds: float, end_seconds: float = END_SECONDS) -> None:
        self._poll_seconds, self._end_seconds = poll_seconds, end_seconds
        self._loss: str | None = None
        self._interrupting = self._interrupted = self._is_over = False
        self._leaving, self._left = threading.Event(), threading.Event()
        self._before: Any = None

    @abstractmethod
    def find_loss(self) -> str | None:
        """Return a sentence about the loss of Ray; None if it is there. Called in the thread."""

    def after_loss(self) -> None:
        """Called in the thread once Ray is lost."""

    def check(self) -> None:
        """Raise a `LostRayError` if Ray is lost."""
        if self._loss is not None:
            raise LostRayError(self._loss)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Raise a `LostRayError` in the main thread if Ray is lost while the context lasts."""
        in_main = threading.current_thread() is threading.main_thread()
        if in_main:
            self._before = signal.signal(signal.SIGINT, self._on_interrupt)
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            yield
            self._is_over = True
        except (KeyboardInterrupt, GeneratorExit):
            # Ray turns every exception of a handler but `KeyboardInterrupt` into a `SystemError`.
            if self._interrupted:
                raise LostRayError(self._loss) from None
            raise
        finally:
            self._leaving.set()
            if in_main:
                signal.signal(signal.SIGINT, self._before)

    def end(self) -> None:
        """Stop watching."""
        self._leaving.set()
        self._left.set()

    def look(self) -> str | None:
        """Look at Ray now, unless its loss is known, and return a sentence about its loss."""
        if self._loss is None:
            self._loss = self.find_loss()
        return self._loss

    def _watch(self) -> None:
        while self.look() is None:
            if self._left.wait(self._poll_seconds):
                return
        if self._is_over:  # Ray is being shut down
            return
        self.after_loss()
        if not self._leaving.wait(SIGNAL_SECONDS):
            self._interrupting = True
            _thread.interrupt_main(signal.SIGINT)
        if not self._left.wait(self._end_seconds):
            # The main thread waits for Ray, which would end this process only after a minute, with a stack trace.
            with suppress(OSError):
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"Error: {self._loss}\n".encode())
            os._exit(PassingError.exit_code)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._interrupting:
            self._interrupting, self._interrupted = False, True
            raise KeyboardInterrupt
        if callable(self._before):
            self._before(number, frame)


@contextmanager
def quiet_ray() -> Iterator[None]:
    """Do not print notes of Ray about machines, and logs of raylets that die, although `ray.init` asked for no logs."""
    from ray._private import ray_logging, worker

    dispatcher: Any = ray_logging.global_worker_stdstream_dispatcher
    dispatcher.remove_handler("ray_print_logs")
    module: Any = worker
    before = module.print_to_stdstream
    module.print_to_stdstream = lambda *arguments, **options: None
    try:
        yield
    finally:
        module.print_to_stdstream = before
