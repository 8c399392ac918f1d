"""Queues between the driver of a training run on Ray and its ranks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codectok.errors import CodectokError, first_line
from codectok.monitoring.events import Event, EventSink, Noted, StepLogged, Validated
from codectok.pipelines.engine.executors.ray_watch import LostRayError
from codectok.train.run.metrics_log import MetricsCallback
from codectok.train.run.run import TrainingReport

if TYPE_CHECKING:
    from ray.util.queue import Queue

POLL_SECONDS = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Queues:
    """Queues between the driver and the ranks.

    Attributes:
        messages: events and the report, from the ranks; warnings are notes.
        verdict: at most one error that a retry cannot fix.
        stop: not empty if the ranks are to stop.
    """

    messages: Queue
    verdict: Queue
    stop: Queue


@contextmanager
def open_queues() -> Iterator[Queues]:
    """Open queues on this machine, and close them after the context."""
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On the driver's node: any other node may be lost.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": here}
    queues = [Queue(size, actor_options=options) for size in (0, 1, 1)]
    try:
        yield Queues(*queues)
    except LostRayError:
        raise  # the queues have died with Ray
    except BaseException:
        _shut_down(queues)
        raise
    _shut_down(queues)


def _shut_down(queues: Sequence[Queue]) -> None:
    for queue in queues:
        queue.shutdown()


@contextmanager
def receiving(messages: Queue, on_metrics: MetricsCallback, events: EventSink) -> Iterator[list[TrainingReport]]:
    """Pass on events, metrics and warnings as they arrive, and collect the reports of the ranks."""
    from ray.exceptions import RayError
    from ray.util.queue import Empty

    reports: list[TrainingReport] = []
    failures: list[Exception] = []
    done = threading.Event()

    def receive() -> None:
        while True:
            try:
                message = messages.get(timeout=POLL_SECONDS)
            except Empty:
                if done.is_set():
                    return
                continue
            except RayError as error:
                failures.append(error)  # the queue is gone, usually with Ray
                return
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
    if failures:
        raise CodectokError(
            f"The driver has lost its ranks ({first_line(failures[0]).rstrip('.')}); run the same command to resume"
            " from the last checkpoint."
        )


def _finish(thread: threading.Thread, done: threading.Event) -> None:
    done.set()
    thread.join()
