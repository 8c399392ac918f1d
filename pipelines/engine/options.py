"""Options of a run: how, where and which units run, but not their output."""

from __future__ import annotations

from dataclasses import dataclass

from codectok.choices import EngineName
from codectok.errors import InputError

from .lock import JobShare


@dataclass(frozen=True)
class RunOptions:
    """How, where and which units run; the bytes of the output do not depend on it.

    Attributes:
        engine: "ray" (actors) or "local" (this process, one unit after the other).
        workers: Ray actors; None for as many as the cluster has cores for (see `executors.placement`).
        address: address of a Ray cluster to join; None for `RAY_ADDRESS`, or a Ray started for the job.
        gpus: GPUs for jobs that use GPUs; None for all of the cluster.
        part: share of the units to run, while other runs take the other shares; None for all units.
        limit: largest number of units to run; None for no limit.
        extend: list the sources again and add new ones to the plan.
        max_rejects: largest share of broken inputs, 0 to 1.
        deadline_seconds: time limit of a unit; after it the worker counts as hanging, and another one tries (Ray only).
        strict: refuse manifests with lines that cannot be used, when the sources are listed; else they become rejects.
        check_space: refuse to start if the estimated output does not fit the free space.
        log_dir: folder or URL for the events and metrics of the run; None to keep none.
    """

    engine: EngineName = "ray"
    workers: int | None = None
    address: str | None = None
    gpus: int | None = None
    part: JobShare | None = None
    limit: int | None = None
    extend: bool = False
    max_rejects: float = 0.1
    deadline_seconds: float = 6 * 3600.0
    check_space: bool = True
    strict: bool = False
    log_dir: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_rejects <= 1:
            raise InputError(f"The share of rejects is a number from 0 to 1, not {self.max_rejects:g}.")
        if self.extend and self.part is not None:
            raise InputError(
                "A run with --part cannot extend the plan; extend it first, with one command for all parts."
            )

    def cores_to_start(self, threads: int, gpus: int) -> int | None:
        """Cores of a Ray that is started for the job, one of them for each GPU; None for all of this machine."""
        return None if self.workers is None else self.workers * threads + gpus
