"""`codectok export sequences` and `codectok export megatron`: the same documents, in two forms."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from codectok.cli.job_choices import JobChoices, with_job_choices
from codectok.errors import InputError

from .options import ModelOption, OffsetOption, PartMegabytesOption, TokenizerOption, offset_of

FORMS = {
    "sequences": (
        "Make sequences of ids for training a language model (Parquet).",
        "codectok export sequences tokens/ sequences/ --task tts --tokenizer qwen/ --packing next-fit --length 8192",
    ),
    "megatron": (
        "Make indexed datasets of ids for Megatron (.bin and .idx).",
        "codectok export megatron tokens/ megatron/ --task tts --tokenizer qwen/",
    ),
}


class Packing(StrEnum):
    """How documents become sequences."""

    NONE = "none"
    NEXT_FIT = "next-fit"
    FIRST_FIT = "first-fit"


class TooLong(StrEnum):
    """What becomes of documents that are longer than a sequence."""

    DROP = "drop"
    TRUNCATE = "truncate"
    SPLIT = "split"
    KEEP = "keep"


class Until(StrEnum):
    """Where a mixture ends."""

    FIRST = "first"
    LAST = "last"


@with_job_choices
def run(
    ctx: typer.Context,
    tables: Annotated[
        list[str], typer.Argument(help="Folders, Parquet files or URLs of token tables; NAME=TABLE names one.")
    ],
    output: Annotated[str, typer.Argument(help="Folder or URL: new, or of the same job to go on.")],
    task: Annotated[
        list[str] | None,
        typer.Option(help="audio, tts, asr, interleaved, or a template file; NAME=TASK for one of the tables."),
    ] = None,
    tokenizer: TokenizerOption = None,
    text: Annotated[
        list[str] | None, typer.Option(help="Text beside the tables: JSON lines or Parquet with a column `text`.")
    ] = None,
    offset: OffsetOption = None,
    model: ModelOption = None,
    eos: Annotated[
        str | None, typer.Option(help="Token or id that ends a document; the tokenizer's own by default.")
    ] = None,
    voice: Annotated[
        str | None,
        typer.Option(help="Voice that comes first in tts: a row's id, TABLE#ID, or `speaker` for another clip."),
    ] = None,
    packing: Annotated[Packing, typer.Option(help="How documents share sequences.")] = Packing.NONE,
    length: Annotated[int | None, typer.Option(min=1, help="Tokens that a sequence has at most.")] = None,
    too_long: Annotated[
        TooLong | None, typer.Option(help="What becomes of longer documents.", show_default="drop")
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="NAME=SHARE: mix the sources so that their tokens are in these shares.")
    ] = None,
    until: Annotated[
        Until | None,
        typer.Option(
            help="A mixture ends where its first source does, or where its last one does.", show_default="first"
        ),
    ] = None,
    part_megabytes: PartMegabytesOption = 256.0,
    *,
    choices: JobChoices,
) -> None:
    """Bring token tables, and texts beside them, into the form that trains a language model."""
    from codectok.cli.jobs import run_and_report
    from codectok.exports.sequences.packing import PackingOptions
    from codectok.pipelines.export.documents import MegatronJob, SequencesJob
    from codectok.pipelines.export.options import DocumentOptions
    from codectok.pipelines.export.sources import ExportSources

    templates = _named(task or ["audio"], "--task")
    weights = _named(weight or [], "--weight")
    if "" in weights:
        raise InputError(f"--weight {weights['']} names no source; write NAME={weights['']}.")
    if until is not None and not weights:
        raise InputError("--until is for mixtures; give every source a --weight, or leave it out.")
    if too_long is not None and length is None:
        raise InputError("--too-long needs to know what is too long; pass --length.")
    chosen = offset_of(offset, model, tokenizer, lambda: ExportSources.of(tables).metadata)
    settings = DocumentOptions(
        template=templates.pop("", "audio"),
        templates=templates,
        tokenizer=None if tokenizer is None else str(tokenizer.absolute()),
        offset=chosen.value,
        end_of_sequence=eos,
        voice=voice,
        packing=PackingOptions(packing.value, length, (too_long or TooLong.DROP).value),
        weights={name: _number(name, share) for name, share in weights.items()} or None,
        until=(until or Until.FIRST).value,
        part_megabytes=part_megabytes,
    )
    job = (SequencesJob if ctx.info_name == "sequences" else MegatronJob)(settings, tables, text or [])
    run_and_report(job, job.sources.arguments, output, choices, facts={"offset": chosen})


def _named(values: list[str], option: str) -> dict[str, str]:
    """Values by the name of the source that they are for; "" for all others."""
    found: dict[str, str] = {}
    for value in values:
        name, separator, rest = value.partition("=")
        name, rest = (name, rest) if separator else ("", value)
        if name in found:
            raise InputError(f"{option} says two things of {name or 'all sources'}: {found[name]} and {rest}.")
        found[name] = rest
    return found


def _number(name: str, share: str) -> float:
    try:
        return float(share)
    except ValueError:
        raise InputError(f"The weight of {name} is a number, not {share!r}.") from None
