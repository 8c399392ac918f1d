"""Jobs over corpora: sources are cut into units, and each unit becomes an output file.

These names are all that a custom job needs; see "A job of my own" in `docs/jobs.md`. They are imported when they
are used, so that the command line starts without torch and Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine.job import FirstPass as FirstPass
    from .engine.job import Job as Job
    from .engine.job import JobReporter as JobReporter
    from .engine.job import WorkerContext as WorkerContext
    from .engine.lock import JobShare as JobShare
    from .engine.options import RunOptions as RunOptions
    from .engine.plan import Unit as Unit
    from .engine.preview import preview_job as preview_job
    from .engine.progress import NullProgress as NullProgress
    from .engine.run import JobReport as JobReport
    from .engine.run import run_job as run_job
    from .engine.table_job import TableJob as TableJob
    from .engine.unit_clips import clips_of_unit as clips_of_unit
    from .engine.unit_clips import decoded_clips as decoded_clips
    from .engine.unit_output import UnitOutput as UnitOutput
    from .engine.verifier import OutputVerifier as OutputVerifier
    from .verify.output import verify_output as verify_output

_MODULES = {
    "FirstPass": "engine.job",
    "Job": "engine.job",
    "JobReport": "engine.run",
    "JobReporter": "engine.job",
    "JobShare": "engine.lock",
    "NullProgress": "engine.progress",
    "OutputVerifier": "engine.verifier",
    "RunOptions": "engine.options",
    "TableJob": "engine.table_job",
    "Unit": "engine.plan",
    "UnitOutput": "engine.unit_output",
    "WorkerContext": "engine.job",
    "decoded_clips": "engine.unit_clips",
    "preview_job": "engine.preview",
    "clips_of_unit": "engine.unit_clips",
    "run_job": "engine.run",
    "verify_output": "verify.output",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
