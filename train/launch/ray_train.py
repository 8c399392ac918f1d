"""Starts the ranks of a training run with Ray Train, and starts them again when one dies.

The driver retries itself, since Ray Train would wait for a lost machine in silence, or start any number of ranks.
A rank that fails with an error that a retry cannot fix puts it into the `verdict` queue, which ends the run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from codectok.errors import CodectokError, InputError
from codectok.monitoring.events import EventSink, NullEvents
from codectok.pipelines.engine.executors.ray_cluster import cluster_resource, current_umask, ray_session
from codectok.train.config import TrainConfig
from codectok.train.run.lock import OutputLock
from codectok.train.run.metrics_log import MetricsCallback
from codectok.train.run.output import check_output, claim_output
from codectok.train.run.preparation import open_segments
from codectok.train.run.run import TrainingReport
from codectok.train.signals import stop_on_interrupt

from .rank_places import RankLimits, fit_accumulation, free_places, wait_for_places
from .ray_queues import Queues, open_queues, receiving
from .ray_rank import train_rank

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

# Folder in the output for Ray Train's own files.
RAY_FOLDER = "ray"
RAY_FILE = ".validate_storage_marker"
POLL_SECONDS = 0.5
# Interval at which fewer ranks than wanted look for places for more.
GROWTH_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayOptions:
    """Options of a run on Ray.

    Attributes:
        workers: number of ranks; by default one per GPU of the cluster, or one if it has none.
        address: of a cluster to join; by default `RAY_ADDRESS`, or a new Ray on this machine.
        retries: how often all ranks are started again from the last checkpoint after one of them has died.
        min_workers: smallest number of ranks with which a run continues after machines are lost.
        wait_seconds: how long a lost machine is waited for before a run continues with fewer ranks.
    """

    workers: int | None = None
    address: str | None = None
    retries: int = 3
    min_workers: int = 1
    wait_seconds: float = 300.0


def train_on_ray(
    config: TrainConfig, options: RayOptions, on_metrics: MetricsCallback, events: EventSink | None = None
) -> TrainingReport:
    """Train as `train` does, on ranks started by Ray; all nodes must see the folders of `config` by the same names.

    Raises:
        InputError: the run cannot be started; for example, the cluster has fewer CPUs or GPUs than ranks.
        CodectokError: training has diverged, or ranks have died more often than `options.retries`.
        KeyboardInterrupt: the run was interrupted while it waited for places.
    """
    open_segments(config)
    check_output(config)
    with OutputLock(config.output):  # later the first rank holds it
        claim_output(config)
    # Created here, since Ray Train would create them with the umask of the cluster.
    (config.output / RAY_FOLDER).mkdir(exist_ok=True)
    (config.output / RAY_FOLDER / RAY_FILE).touch()
    with ray_session(options.address, None) as check_ray:
        on_gpus = config.device != "cpu" and cluster_resource("GPU") >= 1
        if config.device.startswith("cuda") and not on_gpus:
            raise InputError("The Ray cluster has no GPU; run on machines that have one, or with device=cpu.")
        limits = _rank_limits(config, options, on_gpus)
        with open_queues() as queues, receiving(queues.messages, on_metrics, events or NullEvents()) as reports:
            stop_requested = _RayRun(config, options, limits, queues, check_ray).run()
    # All ranks return the same report; earlier ones are of ranks that were started again.
    return replace(reports[-1], stop_requested=stop_requested)


class _RayRun:
    """Starts ranks until they have finished, failed or been interrupted."""

    def __init__(
        self,
        config: TrainConfig,
        options: RayOptions,
        limits: RankLimits,
        queues: Queues,
        check_ray: Callable[[], None],
    ) -> None:
        self._config, self._options, self._limits = config, options, limits
        self._queues, self._check_ray = queues, check_ray
        self._deaths = 0

    def run(self) -> bool:
        """Train to the end, and return True if a signal has stopped the ranks."""
        with stop_on_interrupt() as interrupted:
            while True:
                ranks = wait_for_places(self._limits, self._options.wait_seconds, interrupted, self._check_ray)
                failure, growing = self._fit(ranks, interrupted)
                if not self._queues.verdict.empty():
                    raise self._queues.verdict.get()
                if failure is not None:
                    self._count_failure(failure)
                elif not growing or interrupted.is_set():
                    return interrupted.is_set()
                if growing and not self._queues.stop.empty():
                    self._queues.stop.get()

    def _fit(self, ranks: int, interrupted: threading.Event) -> tuple[Exception | None, bool]:
        """Run ranks; return their failure, if any, and True if they were stopped since there are places for more."""
        failures: list[Exception] = []
        trainer = _ray_trainer(self._config, self._limits, ranks, self._queues)

        def fit() -> None:
            try:
                trainer.fit()
            except Exception as error:
                failures.append(error)

        growing, stop = False, self._queues.stop
        looked = time.monotonic()
        # In the main thread, Ray Train would handle Ctrl-C itself and lose unsaved progress.
        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            self._check_ray()
            if interrupted.is_set() and stop.empty():
                stop.put(True)
            if ranks < self._limits.wanted and not growing and time.monotonic() - looked > GROWTH_SECONDS:
                looked = time.monotonic()
                growing = (self._limits.usable(ranks + free_places(self._limits.kind)) or 0) > ranks
                if growing and stop.empty():
                    log.warning("There are places for more ranks; all are started again from a checkpoint of now.")
                    stop.put(True)
        self._check_ray()
        return (failures[0] if failures else None), growing

    def _count_failure(self, failure: Exception) -> None:
        """Raise an error after too many deaths of ranks, or if ranks cannot be tried again."""
        from ray.train import TrainingFailedError
        from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
        from ray.train.v2.api.exceptions import ControllerError

        if not isinstance(failure, TrainingFailedError):
            raise failure
        reason = str(failure).strip().splitlines()[-1]
        if isinstance(failure, ControllerError) and isinstance(
            failure.controller_failure, WorkerGroupStartupTimeoutError
        ):
            log.warning("Not all ranks found a place within a minute.")
            return
        self._deaths += 1
        if self._deaths > self._options.retries:
            raise CodectokError(
                f"Ranks died more than {self._options.retries} times, the last time with: {reason}; run the same"
                " command to resume from the last checkpoint."
            )
        log.warning("A rank has died; all are started again from the last checkpoint (%s).", reason)


def _ray_trainer(config: TrainConfig, limits: RankLimits, ranks: int, queues: Queues) -> TorchTrainer:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    # The first attempt of Ray Train is its last; types know fewer arguments.
    no_retries: Any = {"max_failures": 0, "controller_failure_limit": 0, "max_preemption_failures": 0}
    return TorchTrainer(
        train_rank,
        train_loop_config={
            "config": fit_accumulation(config, ranks, limits.wanted).model_dump(mode="json"),
            "folder": str(Path.cwd()),
            "umask": current_umask(),
            "queues": queues,
        },
        scaling_config=ScalingConfig(num_workers=ranks, use_gpu=limits.kind == "GPU"),
        run_config=RunConfig(
            name=RAY_FOLDER,
            storage_path=str(config.output.resolve()),
            failure_config=FailureConfig(**no_retries),
        ),
    )


def _rank_limits(config: TrainConfig, options: RayOptions, on_gpus: bool) -> RankLimits:
    kind: Literal["CPU", "GPU"] = "GPU" if on_gpus else "CPU"
    capacity = int(cluster_resource(kind))
    wanted = options.workers or (capacity if on_gpus else 1)
    if wanted > capacity:
        raise InputError(
            f"The Ray cluster has {capacity} {kind}s, too few for {wanted} ranks; lower --workers, or start more nodes."
        )
    if options.min_workers > wanted:
        raise InputError(f"--min-workers {options.min_workers} is more than the {wanted} ranks of the run.")
    return RankLimits(wanted, options.min_workers, config.data.batch_size, kind)
