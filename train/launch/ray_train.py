"""A training run as a job of Ray Train: ranks on the nodes of a cluster, started again when one of them dies."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codectok.errors import CodectokError, InputError, PassingError
from codectok.pipelines.engine.executors.ray_cluster import start_ray
from codectok.train.config import TrainConfig
from codectok.train.run.metrics_log import LogListener
from codectok.train.run.run import TrainingReport, claim_output, open_dataset
from codectok.train.signals import stop_on_interrupt

from .launch import run_training

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

# In the output: what Ray Train itself remembers.
RAY_FOLDER = "ray"
POLL_SECONDS = 0.5
STOP_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayOptions:
    """Which Ray, and what of it.

    Attributes:
        workers: ranks; by default one for each GPU of the cluster, or one where there is none.
        address: of a cluster to join; without one, `RAY_ADDRESS` or a Ray of this machine's own.
        retries: how often all ranks are started again from the last checkpoint after one of them has died.
    """

    workers: int | None = None
    address: str | None = None
    retries: int = 3


@dataclass(frozen=True)
class _Figures:
    step: int
    scalars: dict[str, float]


@dataclass(frozen=True)
class _Warning:
    text: str


def run_on_ray(config: TrainConfig, options: RayOptions, on_log: LogListener) -> TrainingReport:
    """As `run_training`, with ranks that Ray starts; all nodes must see the folders of `config` by the same names.

    Raises:
        InputError: what the run cannot be started with, such as fewer CPUs or GPUs than it is to have ranks.
        CodectokError: it has diverged, or its ranks have died more often than `options.retries`.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    open_dataset(config)
    claim_output(config)
    mail: list[Queue] = []
    started_here = not ray.is_initialized()
    if started_here:
        start_ray(options.address, None)
    try:
        on_gpus = config.device != "cpu" and bool(ray.cluster_resources().get("GPU"))
        if config.device.startswith("cuda") and not on_gpus:
            raise InputError("The Ray cluster has no GPU; run on machines that have one, or with device=cpu.")
        # On the driver's machine: one of the others may be lost.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        mail = [Queue(size, actor_options={"num_cpus": 0, "scheduling_strategy": here}) for size in (0, 1, 1)]
        queue, verdict, stop = mail
        settings = {
            "config": config.model_dump(mode="json"), "folder": str(Path.cwd()), "queue": queue, "verdict": verdict,
            "stop": stop,
        }  # fmt: skip
        trainer = TorchTrainer(
            _work,
            train_loop_config=settings,
            scaling_config=ScalingConfig(num_workers=_n_workers(options, on_gpus), use_gpu=on_gpus),
            run_config=RunConfig(
                name=RAY_FOLDER,
                storage_path=str(config.output.resolve()),
                failure_config=FailureConfig(max_failures=options.retries),
            ),
        )
        with _listening(queue, on_log) as reports:
            failure, to_stop = _fit(trainer, stop)
        if not verdict.empty():
            raise verdict.get()
        if isinstance(failure, TrainingFailedError):
            reason = str(failure).strip().splitlines()[-1]
            raise CodectokError(
                f"Ranks died more than {options.retries} times, at last with: {reason}; the same command goes on from"
                " the last checkpoint."
            )
        if failure is not None:
            raise failure
    finally:
        for box in mail:
            box.shutdown()
        if started_here:
            ray.shutdown()
    return replace(reports[0], to_stop=to_stop)  # that of every rank is the same


def _fit(trainer: TorchTrainer, stop: Queue) -> tuple[Exception | None, bool]:
    """How the trainer has failed, if it has, and whether Ctrl-C or SIGTERM has come, which reach ranks by `stop`."""
    failures: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            failures.append(error)

    with stop_on_interrupt() as interrupted:
        # In the main thread Ray Train would answer Ctrl-C itself, and throw away what was not saved.
        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            if interrupted.is_set() and stop.empty():
                stop.put(True)
    return failures[0] if failures else None, interrupted.is_set()


class _Stop:
    """Whether the driver has been interrupted; asks it once a second."""

    def __init__(self, stop: Queue) -> None:
        self._stop = stop
        self._asked, self._found = 0.0, False

    def is_set(self) -> bool:
        now = time.monotonic()
        if not self._found and now - self._asked > STOP_SECONDS:
            self._asked, self._found = now, not self._stop.empty()
        return self._found


class _Sender(logging.Handler):
    """Sends warnings to the driver."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(logging.WARNING)
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        self._queue.put(_Warning(record.getMessage()))


def _work(settings: dict[str, Any]) -> None:
    """One rank."""
    from ray.train.torch import get_device
    from ray.util.queue import Full

    queue, verdict = settings["queue"], settings["verdict"]
    if not verdict.empty():
        return  # the run has come to an end that is no fault of a rank: started again, it would come to the same
    os.chdir(settings["folder"])
    config = TrainConfig.model_validate(settings["config"])
    config = config.model_copy(update={"device": str(get_device())})
    logging.getLogger("codectok.train").addHandler(_Sender(queue))

    def on_log(step: int, scalars: dict[str, float]) -> None:
        queue.put(_Figures(step, scalars))

    try:
        queue.put(run_training(config, on_log, _Stop(settings["stop"])))
    except PassingError:
        raise  # Ray tries again
    except CodectokError as error:
        with suppress(Full):  # another rank has said it
            verdict.put(error, block=False)
        raise  # so that the others, which may be waiting for this one, are ended


def _n_workers(options: RayOptions, on_gpus: bool) -> int:
    import ray

    kind = "GPU" if on_gpus else "CPU"
    capacity = int(ray.cluster_resources().get(kind, 0))
    wanted = options.workers or (capacity if on_gpus else 1)
    if wanted > capacity:
        raise InputError(
            f"The Ray cluster has {capacity} {kind}s, too few for {wanted} ranks; lower --workers, or start more nodes."
        )
    return wanted


@contextmanager
def _listening(queue: Queue, on_log: LogListener) -> Iterator[list[TrainingReport]]:
    """Pass figures on as they come, and collect the ranks' reports."""
    from ray.util.queue import Empty

    reports: list[TrainingReport] = []
    over = threading.Event()

    def listen() -> None:
        while True:
            try:
                found = queue.get(timeout=POLL_SECONDS)
            except Empty:
                if over.is_set():
                    return
                continue
            if isinstance(found, _Figures):
                on_log(found.step, found.scalars)
            elif isinstance(found, _Warning):
                log.warning(found.text)
            else:
                reports.append(found)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield reports
    finally:
        over.set()
        listener.join()
