"""`codectok export unitts`."""

from __future__ import annotations

from typing import Annotated

import typer

from codectok.cli.job_choices import JobChoices, with_job_choices
from codectok.exports.choices import UnittsStyle, UnittsTask

from .options import AllowMixedOption, ModelOption, OffsetOption, PartMegabytesOption, offset_of

NAME = "unitts"
EXAMPLE = "codectok export unitts tokens/ unitts/ --task tts"


@with_job_choices
def run(
    tables: Annotated[
        list[str], typer.Argument(help="Folders, Parquet files or URLs of token tables; NAME=TABLE names one.")
    ],
    output: Annotated[str, typer.Argument(help="Folder or URL: new, or of the same job to resume it.")],
    task: Annotated[
        UnittsTask, typer.Option(help="Audio alone, text before audio, or audio before text.")
    ] = UnittsTask.TTS,
    style: Annotated[
        UnittsStyle, typer.Option(help="Dialogues in Parquet, or a .audio file per row (with --task audio).")
    ] = UnittsStyle.PARQUET,
    offset: OffsetOption = None,
    model: ModelOption = None,
    part_megabytes: PartMegabytesOption = 64.0,
    allow_mixed: AllowMixedOption = False,
    *,
    choices: JobChoices,
) -> None:
    """Write token tables as pretraining data for UniTTS."""
    from codectok.cli.jobs import run_and_report
    from codectok.pipelines.export.sources import ExportSources
    from codectok.pipelines.export.unitts import UnittsJob, UnittsOptions

    chosen = offset_of(offset, model, None, lambda: ExportSources.of(tables, allow_mixed=allow_mixed).metadata)
    job = UnittsJob(UnittsOptions(task, style, chosen.value, part_megabytes, allow_mixed), tables)
    run_and_report(job, job.sources.arguments, output, choices, facts={"offset": chosen})
