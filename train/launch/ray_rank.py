"""One rank of a training run, in a worker of Ray Train."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from codectok.errors import CodectokError, PassingError
from codectok.monitoring.events import Event, Noted
from codectok.train.config import TrainConfig

from .launch import train
from .ray_queues import Queues

if TYPE_CHECKING:
    from ray.util.queue import Queue

STOP_SECONDS = 1.0


class StopFlag:
    """True after the driver was interrupted; asks the driver at most once per STOP_SECONDS."""

    def __init__(self, stop: Queue) -> None:
        self._stop = stop
        self._asked, self._found = 0.0, False

    def is_set(self) -> bool:
        """Return True once the driver wants ranks to stop."""
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


def train_rank(settings: dict[str, Any]) -> None:
    """Train on one rank, in a worker of Ray Train."""
    from ray.train.torch import get_device
    from ray.util.queue import Full

    queues: Queues = settings["queues"]
    if not queues.verdict.empty():
        return  # started again after an error that a retry cannot fix
    os.umask(settings["umask"])
    os.chdir(settings["folder"])
    config = TrainConfig.model_validate(settings["config"])
    config = config.model_copy(update={"device": str(get_device())})
    logging.getLogger("codectok.train").addHandler(_WarningSender(queues.messages))
    events = _EventSender(queues.messages)
    try:
        queues.messages.put(train(config, stop=StopFlag(queues.stop), events=events))
    except PassingError:
        raise  # Ray tries again
    except CodectokError as error:
        with suppress(Full):  # another rank was first
            queues.verdict.put(error, block=False)
        raise  # so that Ray ends the other ranks, which may be waiting for this one
