"""A training run as a job of Ray Train: ranks on the nodes of a cluster, started again when one of them dies."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codectok.errors import CodectokError, InputError
from codectok.pipelines.cluster import start_ray

from .config import TrainConfig
from .launch import run_training
from .run import TrainingReport, claim_output, open_dataset
from .run_log import LogListener

if TYPE_CHECKING:
    from ray.util.queue import Queue

# In the output: what Ray Train itself remembers.
RAY_FOLDER = "ray"
POLL_SECONDS = 0.5


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

    claim_output(config)
    open_dataset(config)
    started_here = not ray.is_initialized()
    if started_here:
        start_ray(options.address, None)
    try:
        on_gpus = config.device != "cpu" and bool(ray.cluster_resources().get("GPU"))
        queue, verdict = (Queue(maxsize, actor_options={"num_cpus": 0}) for maxsize in (0, 1))
        settings = {
            "config": config.model_dump(mode="json"), "folder": str(Path.cwd()), "queue": queue, "verdict": verdict
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
            failure: TrainingFailedError | None = None
            try:
                trainer.fit()
            except TrainingFailedError as error:
                failure = error
        if not verdict.empty():
            raise verdict.get()
        if failure is not None:
            reason = str(failure).strip().splitlines()[-1]
            raise CodectokError(
                f"Ranks died more than {options.retries} times, at last with: {reason}; the same command goes on from"
                " the last checkpoint."
            )
        verdict.shutdown()
    finally:
        if started_here:
            ray.shutdown()
    return reports[0]  # that of every rank is the same


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
    try:
        queue.put(run_training(config, lambda step, scalars: queue.put(_Figures(step, scalars))))
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
            else:
                reports.append(found)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield reports
    finally:
        over.set()
        listener.join()
        queue.shutdown()
