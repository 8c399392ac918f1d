"""How many workers a run asks for, as its cluster grows and shrinks."""

from __future__ import annotations

from dataclasses import dataclass

from codectok.errors import InputError
from codectok.formatting import counted

from .cluster_nodes import Nodes

# Workers without a place, in a cluster that may grow: they show an autoscaler what the run could use, start as soon as
# a machine joins, and end with the run. As many again as there are places, so that the cluster doubles in each step.
LEAST_SPARE, MOST_SPARE = 2, 256


@dataclass(frozen=True)
class Placement:
    """Places for the workers of a run.

    Attributes:
        threads: cores of a worker.
        limit: largest number of workers; None for no limit.
        grows: machines may join the cluster.
    """

    threads: int
    limit: int | None
    grows: bool

    def places(self, cores: int, units: int) -> int:
        """Number of workers for `units` that have a place on a cluster with `cores` that servers leave free.

        Raises:
            InputError: there is no place, and there will be none.
        """
        capacity = self._capacity(cores)
        if not capacity and not self.grows:
            raise InputError(f"The Ray cluster has no place for a worker, which needs {self.threads} CPUs.")
        return self._limited(capacity, units)

    def workers(self, cores: int, units: int) -> int:
        """Number of workers to ask for: if the cluster may grow, more than have a place."""
        capacity = self._capacity(cores)
        spare = min(max(LEAST_SPARE, capacity), MOST_SPARE) if self.grows else 0
        return self._limited(capacity + spare, units)

    def _capacity(self, cores: int) -> int:
        return max(0, cores // self.threads)

    def _limited(self, workers: int, units: int) -> int:
        return min(self.limit or workers, workers, units)


def describe_cluster(nodes: Nodes) -> str:
    """Machines of the cluster and their cores and GPUs, in a few words."""
    text = f"{counted(len(nodes), 'machine')} with {counted(int(nodes.total('CPU')), 'CPU')}"
    gpus = int(nodes.total("GPU"))
    return f"{text} and {counted(gpus, 'GPU')}" if gpus else text
