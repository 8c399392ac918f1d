"""`codectok export codes`."""

from __future__ import annotations

from typing import Annotated

import typer

from codectok.cli.job_choices import JobChoices, with_job_choices
from codectok.exports.choices import CodesForm

from .options import AllowMixedOption, PartMegabytesOption

NAME = "codes"
EXAMPLE = "codectok export codes tokens/ codes/ --form jsonl"


@with_job_choices
def run(
    tables: Annotated[
        list[str], typer.Argument(help="Folders, Parquet files or URLs of token tables; NAME=TABLE names one.")
    ],
    output: Annotated[str, typer.Argument(help="Folder or URL: new, or of the same job to resume it.")],
    form: Annotated[
        CodesForm, typer.Option(help="Parquet with __key__ and audio_codes, a .npy file per row, or JSON lines.")
    ] = CodesForm.AUDIO_CODES,
    part_megabytes: PartMegabytesOption = 64.0,
    allow_mixed: AllowMixedOption = False,
    *,
    choices: JobChoices,
) -> None:
    """Write plain codes in the forms that other programs read."""
    from codectok.cli.jobs import run_and_report
    from codectok.pipelines.export.codes import CodesJob, CodesOptions

    job = CodesJob(CodesOptions(form, part_megabytes, allow_mixed), tables)
    run_and_report(job, job.sources.arguments, output, choices)
