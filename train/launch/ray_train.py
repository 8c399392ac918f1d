"""Starts the ranks of a training run with Ray Train, and starts them again when one dies.

The retry itself is Ray's (`FailureConfig`). A rank that fails with an error that a retry cannot fix puts it into the
`verdict` queue, which ends the run.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codectok.errors import CodectokError, InputError, PassingError
from codectok.monitoring.events import Event, EventSink, Noted, NullEvents, StepLogged, Validated
from codectok.pipelines.engine.executors.ray_cluster import cluster_resource, current_umask, ray_session
from codectok.pipelines.engine.executors.ray_watch import LostRayError
from codectok.train.config import TrainConfig
from codectok.train.run.metrics_log import MetricsCallback
from codectok.train.run.output import claim_output
from codectok.train.run.preparation import open_segments
from codectok.train.run.run import TrainingReport
from codectok.train.signals import stop_on_interrupt

from .launch import train

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

# Folder in the output for Ray Train's own files.
RAY_FOLDER = "ray"
RAY_FILE = ".validate_storage_marker"
POLL_SECONDS = 0.5
STOP_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayOptions:
    """Options of a run on Ray.

    Attributes:
        workers: number of ranks; by default one per GPU of the cluster, or one if it has none.
        address: of a cluster to join; by default `RAY_ADDRESS`, or a new Ray on this machine.
        retries: how often all ranks are started again from the last checkpoint after one of them has died.
    """

    workers: int | None = None
    address: str | None = None
    retries: int = 3


@dataclass(frozen=True)
class _Queues:
    """Queues between the driver and the ranks.

    Attributes:
        messages: events and the report, from the ranks; warnings are notes.
        verdict: at most one error that a retry cannot fix.
        stop: not empty if the ranks are to stop.
    """

    messages: Queue
    verdict: Queue
    stop: Queue


def train_on_ray(
    config: TrainConfig, options: RayOptions, on_metrics: MetricsCallback, events: EventSink | None = None
) -> TrainingReport:
    """Train as `train` does, on ranks started by Ray; all nodes must see the folders of `config` by the same names.

    Raises:
        InputError: the run cannot be started; for example, the cluster has fewer CPUs or GPUs than ranks.
        CodectokError: training has diverged, or ranks have died more often than `options.retries`.
    """
    open_segments(config)
    claim_output(config)
    # Created here, since Ray Train would create them with the umask of the cluster.
    (config.output / RAY_FOLDER).mkdir(exist_ok=True)
    (config.output / RAY_FOLDER / RAY_FILE).touch()
    with ray_session(options.address, None) as check_ray:
        on_gpus = config.device != "cpu" and cluster_resource("GPU") >= 1
        if config.device.startswith("cuda") and not on_gpus:
            raise InputError("The Ray cluster has no GPU; run on machines that have one, or with device=cpu.")
        with _open_queues() as queues:
            trainer = _ray_trainer(config, options, on_gpus, queues)
            with _receiving(queues.messages, on_metrics, events or NullEvents()) as reports:
                failure, stop_requested = _fit(trainer, queues.stop, check_ray)
            if not queues.verdict.empty():
                raise queues.verdict.get()
        _raise_failure(failure, options.retries)
    return replace(reports[0], stop_requested=stop_requested)  # all ranks return the same report


@contextmanager
def _open_queues() -> Iterator[_Queues]:
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On the driver's node: any other node may be lost.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": here}
    queues = [Queue(size, actor_options=options) for size in (0, 1, 1)]
    try:
        yield _Queues(*queues)
    except LostRayError:
        raise  # the queues have died with Ray
    except BaseException:
        _shut_down(queues)
        raise
    _shut_down(queues)


def _shut_down(queues: Sequence[Queue]) -> None:
    for queue in queues:
        queue.shutdown()


def _ray_trainer(config: TrainConfig, options: RayOptions, on_gpus: bool, queues: _Queues) -> TorchTrainer:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    return TorchTrainer(
        _train_rank,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "folder": str(Path.cwd()),
            "umask": current_umask(),
            "queues": queues,
        },
        scaling_config=ScalingConfig(num_workers=_n_workers(options, on_gpus), use_gpu=on_gpus),
        run_config=RunConfig(
            name=RAY_FOLDER,
            storage_path=str(config.output.resolve()),
            failure_config=FailureConfig(max_failures=options.retries),
        ),
    )


def _fit(trainer: TorchTrainer, stop: Queue, check_ray: Callable[[], None]) -> tuple[Exception | None, bool]:
    """Run the trainer; return its failure, if any, and True if a signal has stopped the ranks."""
    failures: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            failures.append(error)

    with stop_on_interrupt() as interrupted:
        # In the main thread, Ray Train would handle Ctrl-C itself and lose unsaved progress.
        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            check_ray()
            if interrupted.is_set() and stop.empty():
                stop.put(True)
    check_ray()
    return failures[0] if failures else None, interrupted.is_set()


def _raise_failure(failure: Exception | None, retries: int) -> None:
    from ray.train import TrainingFailedError

    if isinstance(failure, TrainingFailedError):
        reason = str(failure).strip().splitlines()[-1]
        raise CodectokError(
            f"Ranks died more than {retries} times, the last time with: {reason}; run the same command to resume from"
            " the last checkpoint."
        )
    if failure is not None:
        raise failure


class _StopFlag:
    """True after the driver was interrupted; asks the driver at most once per STOP_SECONDS."""

    def __init__(self, stop: Queue) -> None:
        self._stop = stop
        self._asked, self._found = 0.0, False

    def is_set(self) -> bool:
        now = time.monotonic()
        if not self._found and now - self._asked > STOP_SECONDS:
            self._asked, self._found = now, not self._stop.empty()
        return self._found


class _WarningSender(logging.Handler):
    """Sends warnings to the driver."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(logging.WARNING)
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        self._queue.put(Noted(record.getMessage()))


class _EventSender:
    """Sends events to the driver."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def emit(self, event: Event) -> None:
        self._queue.put(event)


def _train_rank(settings: dict[str, Any]) -> None:
    """Train on one rank, in a worker of Ray Train."""
    from ray.train.torch import get_device
    from ray.util.queue import Full

    queues: _Queues = settings["queues"]
    if not queues.verdict.empty():
        return  # started again after an error that a retry cannot fix
    os.umask(settings["umask"])
    os.chdir(settings["folder"])
    config = TrainConfig.model_validate(settings["config"])
    config = config.model_copy(update={"device": str(get_device())})
    logging.getLogger("codectok.train").addHandler(_WarningSender(queues.messages))
    events = _EventSender(queues.messages)
    try:
        queues.messages.put(train(config, stop=_StopFlag(queues.stop), events=events))
    except PassingError:
        raise  # Ray tries again
    except CodectokError as error:
        with suppress(Full):  # another rank was first
            queues.verdict.put(error, block=False)
        raise  # so that Ray ends the other ranks, which may be waiting for this one


def _n_workers(options: RayOptions, on_gpus: bool) -> int:
    kind = "GPU" if on_gpus else "CPU"
    capacity = int(cluster_resource(kind))
    wanted = options.workers or (capacity if on_gpus else 1)
    if wanted > capacity:
        raise InputError(
            f"The Ray cluster has {capacity} {kind}s, too few for {wanted} ranks; lower --workers, or start more nodes."
        )
    return wanted


@contextmanager
def _receiving(messages: Queue, on_metrics: MetricsCallback, events: EventSink) -> Iterator[list[TrainingReport]]:
    """Pass on events and warnings as they arrive, and collect the reports of the ranks."""
    from ray.exceptions import RayError
    from ray.util.queue import Empty

    reports: list[TrainingReport] = []
    done = threading.Event()

    def receive() -> None:
        while True:
            try:
                message = messages.get(timeout=POLL_SECONDS)
            except Empty:
                if done.is_set():
                    return
                continue
            except RayError:
                return  # Ray has died, and the main thread tells it
            if isinstance(message, Noted):
                log.warning(message.message)
            elif isinstance(message, Event):
                events.emit(message)
            else:
                reports.append(message)
            if isinstance(message, StepLogged | Validated):
                on_metrics(message.step, dict(message.metrics))

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    try:
        yield reports
    except LostRayError:
        raise  # the thread waits for a queue that has died
    except BaseException:
        _finish(thread, done)
        raise
    _finish(thread, done)


def _finish(thread: threading.Thread, done: threading.Event) -> None:
    done.set()
    thread.join()
