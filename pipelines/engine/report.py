"""The report of a finished job: what went in, what came out, what was rejected and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from codectok.evaluation.html_report import HtmlReport
from codectok.formatting import format_duration
from codectok.sources.listing import JOB_FOLDER
from codectok.storage import Storage

from .job import Example, Job, Tally
from .output import JobSummary

REPORT_FILE = f"{JOB_FOLDER}/report.html"
# What is counted in histograms, and the size of a step.
QUANTITIES = {
    "duration": "Duration in s",
    "loudness": "Loudness in LUFS",
    "bandwidth": "Bandwidth in kHz",
    "sequence": "Hundreds of tokens in a sequence",
}


def write_report(storage: Storage, job: Job, summary: JobSummary, examples: Sequence[Example]) -> None:
    """Write `report.html`, the same bytes for the same output."""
    report = HtmlReport(f"codectok {job.verb}")
    total = summary.total
    report.table(
        "In all",
        ("", ""),
        [
            ("read", f"{format_duration(total.input_seconds)} in {total.inputs:,} inputs"),
            ("kept", f"{format_duration(total.seconds)} in {total.rows:,} {job.row_name}"),
            *([(job.code_name, f"{total.codes:,}")] if total.codes else []),
            ("written", f"{summary.bytes / 1e6:,.1f} MB in {summary.files:,} files"),
            ("ignored", f"{total.ignored:,} other files"),
        ],
    )
    if total.rejects:
        report.table("Rejected", ("reason", "times", "audio"), reject_rows(total))
    written = written_columns(job, total)
    report.table(
        "By dataset",
        ("dataset", "read", "kept", *written, "rejected"),
        [
            (
                name,
                format_duration(tally.input_seconds),
                format_duration(tally.seconds),
                *(f"{count_of(tally):,}" for count_of in written.values()),
                f"{sum(tally.rejects.values()):,}",
            )
            for name, tally in summary.datasets.items()
        ],
    )
    for quantity, title in QUANTITIES.items():
        report.histogram(title, summary.histograms.get(quantity, {}))
    for title, counts in job.charts(storage).items():
        report.histogram(title, counts)
    report.clips("To listen to", [(example.caption, example.mime, example.data) for example in examples])
    storage.write(REPORT_FILE, report.render().encode())


def written_columns(job: Job, total: Tally) -> dict[str, Callable[[Tally], int]]:
    """What a job counts of its output, by its own names: rows, and codes where there are some."""
    columns: dict[str, Callable[[Tally], int]] = {job.row_name: lambda tally: tally.rows}
    return columns | {job.code_name: lambda tally: tally.codes} if total.codes else columns


def reject_rows(total: Tally) -> Iterator[tuple[str, str, str]]:
    """Reason, count and known duration, the most frequent first."""
    for reason, count in sorted(total.rejects.items(), key=lambda item: (-item[1], item[0])):
        seconds = total.reject_seconds.get(reason, 0.0)
        yield reason, f"{count:,}", format_duration(seconds) if seconds else "not known"
