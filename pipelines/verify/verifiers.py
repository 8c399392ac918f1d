"""Verifiers of codectok's jobs, by verb."""

from __future__ import annotations

from codectok.pipelines.engine.job import Job
from codectok.pipelines.engine.verifier import OutputVerifier
from codectok.pipelines.evaluate.job import EvaluateJob
from codectok.pipelines.export.chat import ChatMegatronJob, ChatSequencesJob
from codectok.pipelines.export.codes import CodesJob
from codectok.pipelines.export.compact import CompactJob
from codectok.pipelines.export.documents import MegatronJob, SequencesJob
from codectok.pipelines.export.unitts import UnittsJob
from codectok.pipelines.imports.job import ImportCodesJob
from codectok.pipelines.shard.job import ShardJob
from codectok.pipelines.tokenize.job import TokenizeJob

JOBS: tuple[type[Job], ...] = (
    ShardJob, TokenizeJob, EvaluateJob, SequencesJob, MegatronJob, UnittsJob, CompactJob, CodesJob,
    ImportCodesJob, ChatSequencesJob, ChatMegatronJob,
)  # fmt: skip


def verifier_of(verb: str) -> type[OutputVerifier] | None:
    """Verifier of the job `verb`; None if it is not one of codectok's jobs."""
    return next((job.verifier for job in JOBS if job.verb == verb), None)
