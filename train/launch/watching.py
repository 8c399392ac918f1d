"""Events and metrics of a training run, around it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import codectok
from codectok.monitoring.events import EventSink, Noted
from codectok.monitoring.monitor import Monitor, RunMonitor
from codectok.train.config import TrainConfig

VERB, WHOLE = "train", "whole"


@contextmanager
def watched(config: TrainConfig, log_dir: str | None, on_note: Callable[[str], None]) -> Iterator[RunMonitor]:
    """Yield the receiver of the events of a run, between its first and its last event; warnings are events, too.

    Args:
        config: of the run.
        log_dir: folder or URL for events and metrics; None to keep none.
        on_note: called with each warning, and with a sentence when events and metrics cannot be written any more.

    Raises:
        InputError: the folder cannot be written, or lies in the output.
    """
    events = Monitor(VERB, str(config.output), WHOLE, log_dir, on_note).run(VERB)
    handler = _WarningEvents(events, on_note)
    logger = logging.getLogger("codectok.train")
    with events.recorded(codectok.__version__, json.loads(config.model_dump_json())):
        logger.addHandler(handler)
        try:
            yield events
        finally:
            logger.removeHandler(handler)


class _WarningEvents(logging.Handler):
    """Emits warnings as events, and shows them: Python shows only warnings that have no handler."""

    def __init__(self, events: EventSink, on_note: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._events, self._on_note = events, on_note

    def emit(self, record: logging.LogRecord) -> None:
        self._events.emit(Noted(record.getMessage()))
        self._on_note(record.getMessage())
