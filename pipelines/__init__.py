"""Jobs over corpora: sources are cut into units, and each unit becomes an output file.

These names are all that a custom job needs; see "A job of my own" in `docs/jobs.md`. They are imported when they
are used, so that the command line starts without torch and Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codectok.pipelines.engine.job import Example, FirstPass, Job, JobReporter, Server, WorkerContext
    from codectok.pipelines.engine.lock import JobShare
    from codectok.pipelines.engine.options import RunOptions
    from codectok.pipelines.engine.output.records import Counts, UnitRecord
    from codectok.pipelines.engine.output.unit_output import UnitOutput
    from codectok.pipelines.engine.planning.cutting import CuttingPolicy
    from codectok.pipelines.engine.planning.preview import preview_job
    from codectok.pipelines.engine.planning.unit import Unit
    from codectok.pipelines.engine.progress import NullProgress, ProgressCallback
    from codectok.pipelines.engine.run import JobReport, run_job
    from codectok.pipelines.engine.table_job import TableJob
    from codectok.pipelines.engine.unit_clips import clips_of_unit, decoded_clips
    from codectok.pipelines.engine.verifier import OutputVerifier
    from codectok.pipelines.evaluate.job import EvaluateJob
    from codectok.pipelines.evaluate.options import EvaluateOptions, NamedCodec
    from codectok.pipelines.shard.job import ShardJob
    from codectok.pipelines.shard.options import ShardOptions
    from codectok.pipelines.tokenize.job import TokenizeJob
    from codectok.pipelines.tokenize.options import TokenizeOptions
    from codectok.pipelines.verify.output import verify_output

__all__ = [
    "Counts",
    "CuttingPolicy",
    "EvaluateJob",
    "EvaluateOptions",
    "Example",
    "FirstPass",
    "Job",
    "JobReport",
    "JobReporter",
    "JobShare",
    "NamedCodec",
    "NullProgress",
    "OutputVerifier",
    "ProgressCallback",
    "RunOptions",
    "Server",
    "ShardJob",
    "ShardOptions",
    "TableJob",
    "TokenizeJob",
    "TokenizeOptions",
    "Unit",
    "UnitOutput",
    "UnitRecord",
    "WorkerContext",
    "clips_of_unit",
    "decoded_clips",
    "preview_job",
    "run_job",
    "verify_output",
]

_MODULES = {
    "Counts": "engine.output.records",
    "CuttingPolicy": "engine.planning.cutting",
    "EvaluateJob": "evaluate.job",
    "EvaluateOptions": "evaluate.options",
    "Example": "engine.job",
    "FirstPass": "engine.job",
    "Job": "engine.job",
    "JobReport": "engine.run",
    "JobReporter": "engine.job",
    "JobShare": "engine.lock",
    "NamedCodec": "evaluate.options",
    "NullProgress": "engine.progress",
    "OutputVerifier": "engine.verifier",
    "ProgressCallback": "engine.progress",
    "RunOptions": "engine.options",
    "Server": "engine.job",
    "ShardJob": "shard.job",
    "ShardOptions": "shard.options",
    "TableJob": "engine.table_job",
    "TokenizeJob": "tokenize.job",
    "TokenizeOptions": "tokenize.options",
    "Unit": "engine.planning.unit",
    "UnitOutput": "engine.output.unit_output",
    "UnitRecord": "engine.output.records",
    "WorkerContext": "engine.job",
    "clips_of_unit": "engine.unit_clips",
    "decoded_clips": "engine.unit_clips",
    "preview_job": "engine.planning.preview",
    "run_job": "engine.run",
    "verify_output": "verify.output",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
