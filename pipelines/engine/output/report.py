"""HTML report of a finished job: inputs, output, and rejects by reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from codectok.evaluation.pages.report import HtmlReport
from codectok.formatting import counted, format_duration
from codectok.names import JOB_FOLDER
from codectok.pipelines.engine.job import Example, Job
from codectok.sources.rejects import REJECTS_FOLDER
from codectok.sources.unused import unused_rows
from codectok.storage import Storage

from .records import Counts
from .summary import JobSummary

REPORT_FILE = f"{JOB_FOLDER}/report.html"
# Quantities that units count in histograms, with a title that names the size of a step.
QUANTITIES = {
    "duration": "Duration in s",
    "loudness": "Loudness in LUFS",
    "bandwidth": "Bandwidth in kHz",
    "sequence": "Hundreds of tokens in a sequence",
}


def write_report(storage: Storage, job: Job, summary: JobSummary, examples: Sequence[Example]) -> None:
    """Write `report.html`; the bytes depend on the output only."""
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
            *([("read as", describe_layouts(summary))] if summary.layouts else []),
            *([("labels", describe_labels(total, job.row_name))] if "audio" in job.kinds else []),
        ],
    )
    if total.rejects:
        report.table("Rejected", ("reason", "times", "audio"), reject_rows(total))
    if bug := describe_bugs(total, storage):
        report.table("To report", ("", ""), [("bug of codectok", bug)])
    report.table("Not used", ("part", "name", "number", "example"), unused_rows(total.unused))
    written = written_columns(job, total)
    report.table(
        "By dataset",
        ("dataset", "read", "kept", *written, "rejected"),
        [
            (
                name,
                format_duration(counts.input_seconds),
                format_duration(counts.seconds),
                *(f"{count_of(counts):,}" for count_of in written.values()),
                f"{sum(counts.rejects.values()):,}",
            )
            for name, counts in summary.datasets.items()
        ],
    )
    for quantity, title in QUANTITIES.items():
        report.histogram(title, summary.histograms.get(quantity, {}))
    for title, histogram in job.reporter.charts(storage).items():
        report.histogram(title, histogram)
    report.clips("To listen to", [(example.caption, example.mime, example.data) for example in examples])
    storage.write(REPORT_FILE, report.render().encode())


def written_columns(job: Job, total: Counts) -> dict[str, Callable[[Counts], int]]:
    """Columns of the output by the job's names: rows, and codes if there are any."""
    columns: dict[str, Callable[[Counts], int]] = {job.row_name: lambda counts: counts.rows}
    return columns | {job.code_name: lambda counts: counts.codes} if total.codes else columns


def reject_rows(total: Counts) -> Iterator[tuple[str, str, str]]:
    """Yield reason, count and known duration of rejects, the most frequent first."""
    for reason, count in _most_frequent(total):
        seconds = total.reject_seconds.get(reason, 0.0)
        yield reason, f"{count:,}", format_duration(seconds) if seconds else "not known"


def describe_labels(total: Counts, row_name: str) -> str:
    """How many rows have text, speaker and language."""
    counts = (total.with_text, total.with_speaker, total.with_language)
    described = (f"{count:,} {name}" for count, name in zip(counts, ("text", "speaker", "language"), strict=True))
    return f"of {total.rows:,} {row_name}: {', '.join(described)}"


def describe_layouts(summary: JobSummary) -> str:
    """Layouts of corpora that were recognised, with the files by which they were."""
    return "; ".join(
        f"{name} ({counted(entry.count, 'file')}, such as {entry.example})" for name, entry in summary.layouts.items()
    )


def describe_rejects(total: Counts) -> str:
    """Rejects by reason in a few words, the most frequent first."""
    return ", ".join(f"{count:,} {reason}" for reason, count in _most_frequent(total)) or "none"


def describe_bugs(total: Counts, storage: Storage) -> str:
    """Sentence about inputs that were rejected because of an exception that nothing foresaw; "" without any."""
    count = total.rejects.get("unexpected_error", 0)
    if not count:
        return ""
    return (
        f"{counted(count, 'input')} met a bug of codectok and became rejects (unexpected_error); please report the"
        f" messages in {storage.url}/{REJECTS_FOLDER}."
    )


def _most_frequent(total: Counts) -> list[tuple[str, int]]:
    return sorted(total.rejects.items(), key=lambda item: (-item[1], item[0]))
