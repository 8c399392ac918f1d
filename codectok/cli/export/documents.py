"""`codectok export sequences` and `codectok export megatron`: the same documents in two formats."""

from __future__ import annotations

from typing import Annotated

import typer

from codectok.cli.job_choices import JobChoices, with_job_choices
from codectok.exports.choices import Loss, Packing, TooLong, Until

from .options import (
    AllowMixedOption,
    LayoutOption,
    LengthsOption,
    ModelOption,
    OffsetOption,
    PackingOption,
    PartMegabytesOption,
    SampleOption,
    TokenizerOption,
    UntilOption,
    WeightOption,
    ids_facts,
    named_values,
    offset_of,
    packing_of,
    weights_of,
)

FORMATS = {
    "sequences": (
        "Make sequences of token ids for training a language model (Parquet).",
        "codectok export sequences tokens/ sequences/ --task tts --tokenizer qwen/ --packing next-fit --length 8192",
    ),
    "megatron": (
        "Make indexed datasets of token ids for Megatron (.bin and .idx).",
        "codectok export megatron tokens/ megatron/ --task tts --tokenizer qwen/",
    ),
}


@with_job_choices
def run(
    context: typer.Context,
    tables: Annotated[
        list[str], typer.Argument(help="Folders, Parquet files or URLs of token tables; NAME=TABLE names one.")
    ],
    output: Annotated[str, typer.Argument(help="Folder or URL: new, or of the same job to resume it.")],
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="audio, tts, asr, interleaved, a pattern of audio and text (ATAT, or ATAT:2,TATA:1 with shares), or a"
            " template file; NAME=TASK for one source.",
            show_default="audio",
        ),
    ] = None,
    tokenizer: TokenizerOption = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Text sources: JSON lines or Parquet with a column `text`; NAME=SOURCE names one."),
    ] = None,
    offset: OffsetOption = None,
    model: ModelOption = None,
    eos: Annotated[
        str | None, typer.Option(help="Token or id that ends a document; the tokenizer's own by default.")
    ] = None,
    voice: Annotated[
        str | None,
        typer.Option(
            help="Voice that tts imitates: a row's id, TABLE#ID, or `speaker` for another clip of the row's speaker."
        ),
    ] = None,
    switch_token: Annotated[
        str | None, typer.Option(help="Token where audio and text of a pattern change.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the choice between patterns.", show_default="0")
    ] = None,
    packing: PackingOption = Packing.NONE,
    length: LengthsOption = None,
    too_long: Annotated[
        TooLong | None, typer.Option(help="How longer documents are handled.", show_default="drop")
    ] = None,
    weight: WeightOption = None,
    until: UntilOption = None,
    loss: Annotated[
        Loss | None,
        typer.Option(help="Add labels that learn all tokens, audio alone, or answers.", show_default=False),
    ] = None,
    part_megabytes: PartMegabytesOption = 256.0,
    allow_mixed: AllowMixedOption = False,
    layout: LayoutOption = "unitts",
    sample: SampleOption = None,
    *,
    choices: JobChoices,
) -> None:
    """Make documents of token tables and texts for training a language model."""
    from codectok.cli.export.dry_run import number_of_parts, show_documents
    from codectok.cli.jobs import run_and_report
    from codectok.pipelines.export.documents import MegatronJob, SequencesJob
    from codectok.pipelines.export.options import DocumentOptions
    from codectok.pipelines.export.sources import ExportSources
    from codectok.tokens.layouts.loading import load_layout

    parts = number_of_parts(sample, choices.dry_run)
    packing_options, shorter_lengths = packing_of(packing, length, too_long)
    weights = weights_of(weight, until)
    loaded_layout = load_layout(layout)
    templates = named_values(task or ["audio"], "--task")
    chosen = offset_of(
        offset,
        model,
        tokenizer,
        lambda: ExportSources.of(tables, allow_mixed=allow_mixed).metadata,
        loaded_layout,
    )
    settings = DocumentOptions(
        template=templates.pop("", "audio"),
        templates=templates,
        tokenizer=None if tokenizer is None else str(tokenizer.absolute()),
        offset=chosen.value,
        end_of_sequence=eos,
        switch=switch_token,
        seed=seed,
        voice=voice,
        packing=packing_options,
        shorter_lengths=shorter_lengths,
        weights=weights,
        until=until or Until.FIRST,
        part_megabytes=part_megabytes,
        allow_mixed=allow_mixed,
        layout=loaded_layout,
        loss=loss,
    )
    job = (SequencesJob if context.info_name == "sequences" else MegatronJob)(settings, tables, text or [])
    run_and_report(job, job.sources.arguments, output, choices, facts=ids_facts(chosen, loaded_layout))
    if choices.dry_run:
        show_documents(job, output, choices, parts)
