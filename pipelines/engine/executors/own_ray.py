"""A Ray that this process starts: it ends with this process, and its death is told at once."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from codectok.errors import PassingError

from . import watchdog

# Processes without which Ray cannot work; it starts the others again, or works without them.
VITAL = {"raylet": "raylet", "gcs_server": "GCS"}
POLL_SECONDS = 0.5
# A signal to the whole process group reaches Ray as well: the driver's own reaction comes first.
SIGNAL_SECONDS = 1.0
# Ray's calls can wait for a dead GCS for a minute, and cannot be interrupted.
END_SECONDS = 15.0
WATCHDOG_SECONDS = 10.0


class LostRayError(PassingError):
    """The Ray of this process has died."""


class OwnRay:
    """Watches the vital processes of a Ray that this process has started."""

    def __init__(self, owner: str, vital: Mapping[str, Any]) -> None:
        self._owner, self._vital = owner, vital
        self._loss: str | None = None
        self._interrupting = self._interrupted = False
        self._leaving, self._left = threading.Event(), threading.Event()
        self._before: Any = None

    def check(self) -> None:
        """Raise a `LostRayError` if Ray has died."""
        loss = self._find_loss()
        if loss is not None:
            raise LostRayError(loss)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Raise a `LostRayError` in the main thread if Ray dies while the context lasts."""
        in_main = threading.current_thread() is threading.main_thread()
        if in_main:
            self._before = signal.signal(signal.SIGINT, self._on_interrupt)
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            yield
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

    def _find_loss(self) -> str | None:
        for name, process in self._vital.items():
            if self._loss is None and process.poll() is not None:
                self._loss = (
                    f"Ray has died: its {VITAL[name]} (process {process.pid}) was killed or crashed, perhaps for lack"
                    " of memory; run the same command again to continue."
                )
        return self._loss

    def _watch(self) -> None:
        while self._find_loss() is None:
            if self._left.wait(POLL_SECONDS):
                return
        # Ray's other processes print the log of a raylet that died.
        watchdog.kill(watchdog.processes_of(self._owner) - {process.pid for process in self._vital.values()})
        if not self._leaving.wait(SIGNAL_SECONDS):
            self._interrupting = True
            _thread.interrupt_main(signal.SIGINT)
        if not self._left.wait(END_SECONDS):
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
def own_ray(start: Callable[[], None]) -> Iterator[OwnRay]:
    """Start Ray with `start`, which calls `ray.init`, and end it after the context, or with this process."""
    import ray

    owner = uuid.uuid4().hex
    with _watchdog(owner):
        found: OwnRay | None = None
        try:
            # Titles of processes would overwrite the environment that marks them.
            with _environment({watchdog.OWNER: owner, "SPT_NOENV": "1"}):
                start()
            _keep_quiet()
            found = OwnRay(owner, _vital_processes())
            with found.watch():
                yield found
        finally:
            ray.shutdown()
            if found is not None:
                found.end()


def _keep_quiet() -> None:
    """Do not print the log of a raylet that dies, although `ray.init` was asked to print no logs."""
    from ray._private import ray_logging

    dispatcher: Any = ray_logging.global_worker_stdstream_dispatcher
    dispatcher.remove_handler("ray_print_logs")


def _vital_processes() -> dict[str, Any]:
    from ray._private import worker

    node: Any = worker._global_node
    return {name: node.all_processes[name][0].process for name in VITAL if node.all_processes.get(name)}


@contextmanager
def _watchdog(owner: str) -> Iterator[None]:
    """Run the watchdog of the processes that `owner` marks; it ends all that are left after the context."""
    command = [sys.executable, "-I", "-S", watchdog.__file__, owner, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield
        finally:
            assert process.stdin is not None, "it is a pipe"
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(WATCHDOG_SECONDS)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment while the context lasts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
