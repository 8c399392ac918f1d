"""Runs a slow job in a cluster, for tests of clusters that grow: `growing_job.py ADDRESS CORPUS OUTPUT NODES SECONDS`.

Each unit leaves a file in NODES, named after its node and, if the job has a server on a GPU, after the server's node.
Once two nodes, or two of servers, have left files, the others take no time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.cloudpickle

from codectok.pipelines.engine.job import RunUnit, Server, WorkerContext
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.progress import NullProgress
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.shard.options import ShardOptions

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

SHARD_SECONDS = 15.0
NODES = 2


def node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())


class SlowJob(ShardJob):
    """Takes some seconds for each unit until two nodes have made some."""

    def __init__(self, nodes: Path, seconds: float) -> None:
        super().__init__(ShardOptions(shard_seconds=SHARD_SECONDS))
        self.nodes, self.seconds = nodes, seconds

    def start(self, context: WorkerContext) -> RunUnit:
        run = super().start(context)

        def run_slowly(unit: Unit, output: UnitOutput) -> None:
            if len({path.name.rpartition("-")[2] for path in self.nodes.iterdir()}) < NODES:
                time.sleep(self.seconds)
            served_by = "" if context.server is None else f"-{context.server()()}"
            (self.nodes / f"{node_id()}{served_by}").touch()
            run(unit, output)

        return run_slowly


class NodeServer(Server):
    """Answers with the identity of its node."""

    def start(self) -> Callable[..., Any]:
        return node_id

    def probe(self, unit: Unit) -> None: ...


class ServedSlowJob(SlowJob):
    """Its units need a server on a GPU."""

    @property
    def server(self) -> Server:
        return NodeServer()


class Notes(NullProgress):
    """Prints notes."""

    def note(self, message: str) -> None:
        sys.stdout.write(f"{message}\n")
        sys.stdout.flush()


def main(address: str, corpus: str, output: str, nodes: str, seconds: str, served: str) -> None:
    job = (ServedSlowJob if served == "served" else SlowJob)(Path(nodes), float(seconds))
    run_job(job, [corpus], output, RunOptions(address=address, max_rejects=1.0), Notes())


if __name__ == "__main__":
    main(*sys.argv[1:])
