"""Jobs that call a function before each unit, and drivers that are killed within one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.shard.options import ShardOptions

from .hooked_jobs import BeforeUnits
from .jobs import UNIT_SECONDS, run


class WatchedJob(BeforeUnits, ShardJob):
    """Calls `hook` with the number of each unit before it runs."""

    def __init__(self, hook: Callable[[int], object]) -> None:
        super().__init__(ShardOptions(shard_seconds=UNIT_SECONDS))
        self.hook = hook

    def before(self, unit: Unit, output: UnitOutput) -> None:
        self.hook(unit.number)


def forked(main: Callable[[], object]) -> int:
    """Run `main` in a forked process, and return its id; its status is 1 after an exception."""
    process = os.fork()
    if process == 0:
        try:
            main()
            os._exit(0)
        finally:
            os._exit(1)
    return process


def kill_in_unit(corpus: Path, out: Path, number: int) -> None:
    """Run a job in another process, which is killed in the unit `number`."""

    def kill(unit: int) -> None:
        if unit == number:
            os.kill(os.getpid(), signal.SIGKILL)

    _, status = os.waitpid(forked(lambda: run(WatchedJob(kill), corpus, out)), 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until `condition` is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)
