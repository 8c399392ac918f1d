"""`codectok import codes`."""

from __future__ import annotations

from typing import Annotated

import typer

from codectok.choices import CodeLayout
from codectok.cli.job_choices import JobChoices, with_job_choices
from codectok.cli.options import CodecOption, MaxFileBytesOption

NAME = "codes"
EXAMPLE = "codectok import codes codes/ tokens/ --codec codec/"


@with_job_choices
def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, patterns, Parquet, .jsonl, .npy or UniTTS .audio files, or URLs; NAME=SOURCE names a"
            " dataset."
        ),
    ],
    output: Annotated[str, typer.Argument(help="Folder or URL for the table: new, or of the same job to resume.")],
    codec: CodecOption,
    codes_field: Annotated[
        str | None, typer.Option(help="Column or key with the codes.", show_default="audio_codes, codes, tokens, ...")
    ] = None,
    key_field: Annotated[
        str | None, typer.Option(help="Column or key that names the clip.", show_default="__key__, id, key, ...")
    ] = None,
    text_field: Annotated[
        str | None, typer.Option(help="Column or key with the transcript.", show_default="text, transcript, ...")
    ] = None,
    offset: Annotated[
        int | None,
        typer.Option(
            help="Id of the first code, as exports add it.", show_default="plain codes; 152064 for .audio files"
        ),
    ] = None,
    layout: Annotated[
        CodeLayout,
        typer.Option(help="Order of several codebooks: [frames, codebooks], or [codebooks, frames]; flat ones alike."),
    ] = "auto",
    part_megabytes: Annotated[float, typer.Option(help="MB of the sources per part file.")] = 64.0,
    max_file_bytes: MaxFileBytesOption = None,
    *,
    choices: JobChoices,
) -> None:
    """Make a verified token table of codes that other programs wrote."""
    from codectok.cli.jobs import command_clock, run_and_report

    clock = command_clock()

    from codectok.pipelines.imports.job import ImportCodesJob
    from codectok.pipelines.imports.options import ImportOptions
    from codectok.tokens.imports.rows import FieldNames
    from codectok.tokens.vocabulary import DEFAULT_OFFSET

    names = FieldNames(codes_field, key_field, text_field)
    with clock.during("codec"):
        job = ImportCodesJob(ImportOptions(codec, names, offset, layout, part_megabytes, max_file_bytes))
    first = f"0; {DEFAULT_OFFSET:,} in .audio files (--offset sets another)" if offset is None else f"{offset:,}"
    run_and_report(job, sources, output, choices, facts={"id of the first code": first}, clock=clock)
