"""Errors at the end of a run: units that failed, and outputs without a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codectok.errors import CodectokError
from codectok.pipelines.engine.output.report import describe_rejects
from codectok.sources.rejects import REJECTS_FOLDER
from codectok.storage import Storage

from .job import Job

if TYPE_CHECKING:
    from .run import JobReport


def check_failures(report: JobReport) -> None:
    """Raise a `CodectokError` if units have failed."""
    if report.failed:
        names = ", ".join(str(failure.unit) for failure in report.failed)
        hopeless = all(failure.lasting for failure in report.failed)
        advice = "" if hopeless else "; run the same command again to try them once more"
        raise CodectokError(
            f"{len(report.failed)} of {report.summary.planned_units} units failed ({names}; the first:"
            f" {report.failed[0].message}){advice}."
        )


def check_rows(report: JobReport, job: Job, storage: Storage) -> None:
    """Raise a `CodectokError` if the output is complete and has no rows."""
    if report.summary.complete and not report.summary.total.rows:
        total = report.summary.total
        if not total.rejects and total.ignored:
            raise CodectokError(f"Nothing was written: none of the {total.ignored:,} files is audio.")
        if not total.rejects:
            raise CodectokError("Nothing was written: the sources are empty.")
        raise CodectokError(
            f"Nothing was written: all inputs were rejected ({describe_rejects(total)});"
            f" see {storage.url}/{REJECTS_FOLDER}."
            + "".join(f" {sentence}" for sentence in job.reporter.advice(report.summary.datasets))
        )
