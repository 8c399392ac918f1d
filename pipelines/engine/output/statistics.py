"""Statistics of a finished output: those of its job, and the times of the run that completed it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import JsonValue

from codectok.names import JOB_FOLDER
from codectok.pipelines.engine.timing import RunTiming
from codectok.storage import Storage

STATISTICS_FILE = f"{JOB_FOLDER}/stats.json"


def write_statistics(storage: Storage, statistics: Mapping[str, JsonValue], timing: RunTiming | None) -> None:
    """Write `stats.json`: `statistics`, which follow from the output, and the `timing` of a run, which does not."""
    times = {} if timing is None else {"timing": timing.model_dump(mode="json", exclude_none=True)}
    storage.write(STATISTICS_FILE, json.dumps({**statistics, **times}, separators=(",", ":")).encode() + b"\n")
