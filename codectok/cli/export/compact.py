"""`codectok export compact`."""

from __future__ import annotations

from typing import Annotated

import typer

from codectok.cli.job_choices import JobChoices, with_job_choices

from .options import AllowMixedOption

NAME = "compact"
EXAMPLE = "codectok export compact tokens/ compact/"


@with_job_choices
def run(
    table: Annotated[str, typer.Argument(help="Folder or URL of a token table, or one Parquet file.")],
    output: Annotated[str, typer.Argument(help="Folder or URL: new, or of the same job to resume it.")],
    file_megabytes: Annotated[
        float, typer.Option(help="MB of the table's files to merge into one file; larger files are not cut.")
    ] = 256.0,
    group_megabytes: Annotated[float, typer.Option(help="Least MB of codes in a row group.")] = 32.0,
    allow_mixed: AllowMixedOption = False,
    *,
    choices: JobChoices,
) -> None:
    """Merge the files of a token table into large files for training."""
    from codectok.cli.jobs import run_and_report
    from codectok.pipelines.export.compact import CompactJob, CompactOptions

    job = CompactJob(CompactOptions(file_megabytes, group_megabytes, allow_mixed), table)
    run_and_report(job, job.sources.arguments, output, choices)
