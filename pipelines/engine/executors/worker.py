"""Worker of a run on Ray: an actor that makes units, one after the other."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from codectok.phases import PhaseClock
from codectok.pipelines.engine.crashes import run_despite_crashes, without_crashing_sources
from codectok.pipelines.engine.job import Job, RunUnit, WorkerContext
from codectok.pipelines.engine.output.folder import MadeUnit, run_attempt
from codectok.pipelines.engine.planning.unit import Unit

from .server_actor import Actor, call_of


@dataclass(frozen=True)
class Started:
    """Start of a worker: its seconds by phase, its machine's name, and the identity that Ray gave the machine."""

    phases: Mapping[str, float]
    host: str
    node: str


class Worker:
    """Runs units in an actor's process."""

    def __init__(self, job: Job, context: WorkerContext, server: Actor | None, umask: int) -> None:
        os.umask(umask)
        call = None if server is None else call_of(server)
        self._job, self._server = job, server
        self._context = replace(context, server=call, clock=PhaseClock("start"))

    def start(self) -> Started:
        """Load the job. Ray would hide a failure in the constructor."""
        import ray

        _ = self._run_unit
        gc.freeze()  # modules and the loaded job stay: garbage collection need not look at them again
        return Started(self._context.clock.seconds(), socket.gethostname(), ray.get_runtime_context().get_node_id())

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
