"""`codectok export chat`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from codectok.cli.job_choices import JobChoices, with_job_choices
from codectok.exports.choices import AudioKey, ChatFormat, Packing, TooLong, Until

from .options import (
    AllowMixedOption,
    LayoutOption,
    LengthsOption,
    ModelOption,
    OffsetOption,
    PackingOption,
    PartMegabytesOption,
    SampleOption,
    UntilOption,
    WeightOption,
    ids_facts,
    offset_of,
    packing_of,
    weights_of,
)

NAME = "chat"
EXAMPLE = "codectok export chat conversations.jsonl chat/ --tokens tokens/ --tokenizer qwen-instruct/"


@with_job_choices
def run(
    conversations: Annotated[
        list[str],
        typer.Argument(help="Conversations: JSON lines or Parquet with `messages`; NAME=SOURCE names one."),
    ],
    output: Annotated[str, typer.Argument(help="Folder or URL: new, or of the same job to resume it.")],
    tokens: Annotated[
        list[str], typer.Option(help="Token table with the audio of the conversations; NAME=TABLE names one.")
    ],
    tokenizer: Annotated[Path, typer.Option(help="Folder of the language model's tokenizer, with its chat template.")],
    key: Annotated[
        AudioKey, typer.Option(help="How conversations name audio: by the id of a row, or by its source.")
    ] = AudioKey.ID,
    template: Annotated[
        str, typer.Option(help="The chat template: `tokenizer` for its own, `unitts`, or a Jinja file.")
    ] = "tokenizer",
    format_: Annotated[
        ChatFormat, typer.Option("--format", help="Sequences in Parquet, or indexed datasets for Megatron.")
    ] = ChatFormat.SEQUENCES,
    date: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Date for templates that write today's.", show_default=False),
    ] = None,
    offset: OffsetOption = None,
    model: ModelOption = None,
    packing: PackingOption = Packing.NONE,
    length: LengthsOption = None,
    too_long: Annotated[
        TooLong | None, typer.Option(help="How longer conversations are handled (not split).", show_default="drop")
    ] = None,
    weight: WeightOption = None,
    until: UntilOption = None,
    part_megabytes: PartMegabytesOption = 32.0,
    allow_mixed: AllowMixedOption = False,
    layout: LayoutOption = "unitts",
    sample: SampleOption = None,
    *,
    choices: JobChoices,
) -> None:
    """Make data for instruction tuning of conversations with audio; answers of the assistant are learned."""
    from codectok.cli.export.dry_run import number_of_parts, show_documents
    from codectok.cli.jobs import run_and_report
    from codectok.pipelines.export.chat import ChatMegatronJob, ChatOptions, ChatSequencesJob
    from codectok.pipelines.export.sources import ExportSources
    from codectok.tokens.layouts.loading import load_layout

    parts = number_of_parts(sample, choices.dry_run)
    packing_options, shorter_lengths = packing_of(packing, length, too_long)
    weights = weights_of(weight, until)
    loaded_layout = load_layout(layout)
    chosen = offset_of(
        offset, model, tokenizer, lambda: ExportSources.of(tokens, allow_mixed=allow_mixed).metadata, loaded_layout
    )
    settings = ChatOptions(
        tokenizer=str(tokenizer.absolute()),
        offset=chosen.value,
        packing=packing_options,
        shorter_lengths=shorter_lengths,
        weights=weights,
        until=until or Until.FIRST,
        part_megabytes=part_megabytes,
        allow_mixed=allow_mixed,
        layout=loaded_layout,
        chat_template=str(Path(template).absolute()) if Path(template).is_file() else template,
        key=key,
        today=None if date is None else date.date(),
    )
    make = ChatSequencesJob if format_ == ChatFormat.SEQUENCES else ChatMegatronJob
    job = make(settings, conversations, tokens)
    run_and_report(job, job.sources.arguments, output, choices, facts=ids_facts(chosen, loaded_layout))
    if choices.dry_run:
        show_documents(job, output, choices, parts)
