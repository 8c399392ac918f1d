"""Runs the commands of stages."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rules import LOGS
from stages import Command, Stage

# Times of files stand in plans, and all files get this one.
FILE_TIME = 1_600_000_000
TIMEOUT_SECONDS = 900.0
# Sums depend on the number of threads; bytecode lies aside, so that Python compiles everything once and not 80 times.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "0"}
NOT_INHERITED = ("PYTHONDONTWRITEBYTECODE", "RAY_ADDRESS", "RANK", "WORLD_SIZE", "LOCAL_RANK")


class Runner:
    """Runs stages in the folder `out`, up to `jobs` chains at once, and records exit codes."""

    def __init__(self, out: Path, jobs: int, bytecode: str) -> None:
        self._out, self._jobs = out, jobs
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        self._environment = {**inherited, **ENVIRONMENT, "PYTHONPYCACHEPREFIX": bytecode}
        self.exits: list[tuple[Command, int]] = []
        (out / LOGS).mkdir()

    def run(self, name: str, stage: Stage) -> None:
        """Run all chains of a stage, then set the time of its files."""
        names = [f"{name}-{number}" for number in range(len(stage.chains))]
        with ThreadPoolExecutor(self._jobs) as pool:
            codes = list(pool.map(self._chain, names, stage.chains))
        for commands, found in zip(stage.chains, codes, strict=True):
            self.exits += zip(commands, found, strict=True)
        set_times(self._out)

    def _chain(self, name: str, commands: Sequence[Command]) -> list[int]:
        return [self._command(f"{name}-{number}", command) for number, command in enumerate(commands)]

    def _command(self, name: str, command: Command) -> int:
        started = time.monotonic()
        line = [sys.executable, "-m", "codectok", *shlex.split(command.line)]
        with (self._out / LOGS / f"{name}.txt").open("wb") as log:
            done = subprocess.run(
                line, cwd=self._out, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                timeout=TIMEOUT_SECONDS, check=False,
            )  # fmt: skip
        note(f"{name}: exit {done.returncode} after {time.monotonic() - started:.1f} s: {command.line[:90]}")
        return done.returncode


def set_times(folder: Path) -> None:
    """Set the same time for all files of a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (FILE_TIME, FILE_TIME))


def note(text: str) -> None:
    """Print to standard error, outside the list."""
    sys.stderr.write(f"{text}\n")
