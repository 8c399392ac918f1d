"""Jobs that do something before each unit, such as failing."""

from __future__ import annotations

import sys

import ray.cloudpickle

from codectok.pipelines.engine.job import Job, RunUnit, WorkerContext
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit

# Actors and child processes cannot import the tests.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class BeforeUnits(Job):
    """Mixin that calls `before` with each unit, in the worker."""

    def start(self, context: WorkerContext) -> RunUnit:
        run = super().start(context)

        def run_after_hook(unit: Unit, output: UnitOutput) -> None:
            self.before(unit, output)
            run(unit, output)

        return run_after_hook

    def before(self, unit: Unit, output: UnitOutput) -> None:
        raise NotImplementedError
