"""Tables of a dry run of `codectok export sequences` and `codectok export megatron`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from codectok.cli.console import console, facts_table, progress, rows_table, say, warn
from codectok.errors import InputError
from codectok.formatting import counted, format_duration

if TYPE_CHECKING:
    from codectok.cli.job_choices import JobChoices
    from codectok.pipelines.export.document_job import DocumentJob


def show_documents(job: DocumentJob, output: str, choices: JobChoices, number: int | None) -> None:
    """Count the documents in a number of parts, or in all (None), and show them by source and pattern."""
    from codectok.pipelines.export.dry_run import preview_documents

    with progress(number, "counting documents") as report:
        preview = preview_documents(
            job, job.sources.arguments, output, choices.run_options(None), number, report.advance
        )
    if not preview.all_parts:
        say("No part is left to write: there is nothing to count.")
        return
    whole = preview.parts == preview.all_parts
    total = sum(counts.tokens for counts in preview.counts.values())
    facts = {
        "counted": f"{counted(preview.parts, 'part')} of {preview.all_parts:,} to write,"
        f" {preview.share:.0%} of their sources"
    }
    if not whole and preview.share:
        facts["all parts to write"] = f"about {total / preview.share:,.0f} {job.code_name}; --sample all counts them"
    for folder in job.settings.packings:
        n_sequences = preview.sequences[folder]
        mean = preview.sequence_tokens[folder] / max(n_sequences, 1)
        facts[f"sequences {folder}".strip()] = f"{n_sequences:,} of {mean:,.0f} {job.code_name} on average"
    console.print()
    facts_table(f"codectok {job.verb}: documents", facts)
    if not preview.counts:
        warn("There is no document: all rows and texts are left out.")
    rows_table(
        "by source and pattern",
        ("source", "pattern", "documents", "tokens", "share", "truncated", "audio"),
        [
            (
                source,
                pattern,
                f"{counts.documents:,}",
                f"{counts.tokens:,}",
                f"{counts.tokens / max(total, 1):.1%}",
                f"{counts.truncated:,}",
                format_duration(counts.seconds),
            )
            for (source, pattern), counts in sorted(preview.counts.items())
        ],
    )
    if preview.left_out:
        rows_table(
            "left out",
            ("source", "pattern", "reason", "times", "for example"),
            [(*key, f"{times:,}", preview.examples[key]) for key, times in sorted(preview.left_out.items())],
        )


def number_of_parts(sample: str | None, dry_run: bool) -> int | None:
    """Return the number of parts that --sample names, 1 by default; None for all.

    Raises:
        InputError: it is neither a number nor "all", or there is no dry run.
    """
    if sample is not None and not dry_run:
        raise InputError("--sample is for --dry-run; pass both, or leave it out.")
    if sample == "all":
        return None
    if sample is not None and (not sample.isdecimal() or int(sample) < 1):
        raise InputError(f"--sample must be a number of parts from 1 on, or all, not {sample!r}.")
    return int(sample or 1)
