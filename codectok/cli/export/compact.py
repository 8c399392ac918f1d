"""`codectok export compact`."""

from __future__ import annotations

from typing import Annotated

import typer

from codectok.cli.job_choices import JobChoices, with_job_choices

NAME = "compact"
EXAMPLE = "codectok export compact tokens/ compact/"


@with_job_choices
def run(
    table: Annotated[str, typer.Argument(help="Folder or URL that `tokenize` has written, or one Parquet file.")],
    output: Annotated[str, typer.Argument(help="Folder or URL: new, or of the same job to go on.")],
    file_megabytes: Annotated[
        float, typer.Option(help="MB of the table's files that become one file; larger ones are not cut.")
    ] = 256.0,
    group_megabytes: Annotated[float, typer.Option(help="Least size of the codes in a row group.")] = 32.0,
    *,
    choices: JobChoices,
) -> None:
    """Merge the parts of a token table into files as training reads them best."""
    from codectok.cli.jobs import run_and_report
    from codectok.pipelines.export.compact import CompactJob, CompactOptions

    job = CompactJob(CompactOptions(file_megabytes, group_megabytes), table)
    run_and_report(job, job.sources.arguments, output, choices)
