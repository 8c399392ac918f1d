"""Worker of a run on Ray: an actor that makes units, one after the other."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from codectok.errors import CodectokError
from codectok.phases import PhaseClock
from codectok.pipelines.engine.crashes import run_despite_crashes, without_crashing_sources
from codectok.pipelines.engine.job import Job, RunUnit, WorkerContext
from codectok.pipelines.engine.output.folder import MadeUnit, run_attempt
from codectok.pipelines.engine.planning.unit import Unit

from .requirements import Requirements
from .server_actor import Actor, Unfit, call_of, node_of_actor, refuse_machine


@dataclass(frozen=True)
class Started:
    """Start of a worker: its seconds by phase, its machine's name, and the identity that Ray gave the machine."""

    phases: Mapping[str, float]
    host: str
    node: str


class Worker:
    """Runs units in an actor's process.

    Args:
        job: the job.
        context: state of the run; the worker adds the server.
        server: calls it; None for none.
        umask: of the files that it writes.
        requirements: of its machine; None on the driver's machine.
    """

    def __init__(
        self,
        job: Job,
        context: WorkerContext,
        server: Actor | None,
        umask: int,
        requirements: Requirements | None,
    ) -> None:
        os.umask(umask)
        self._requirements = requirements
        call = None if server is None else call_of(server)
        self._job, self._server = job, server
        self._context = replace(context, server=call, clock=PhaseClock("start"))

    def start(self) -> Started | Unfit:
        """Load the job. Ray would hide a failure in the constructor."""
        host, node = socket.gethostname(), node_of_actor()
        try:
            refuse_machine(None if self._requirements is None else self._requirements.problem())
            _ = self._run_unit
        except CodectokError as error:
            return Unfit(error, host, node)
        gc.freeze()  # modules and the loaded job stay: garbage collection need not look at them again
        return Started(self._context.clock.seconds(), host, node)

    def run(self, unit: Unit, attempt: str, with_care: bool) -> MadeUnit:
        """Make a unit in the folder `attempt`; `with_care` in a child process, since it may crash."""
        storage = self._context.output
        if with_care and self._server is None:
            return run_despite_crashes(self._job, self._context, unit, attempt)
        if with_care:
            unit = without_crashing_sources(self._job, storage, unit, attempt)
        return run_attempt(self._run_unit, unit, storage, attempt)

    @cached_property
    def _run_unit(self) -> RunUnit:
        torch.set_num_threads(self._job.threads)
        return self._job.start(self._context)
