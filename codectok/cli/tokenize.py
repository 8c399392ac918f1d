"""`codectok tokenize`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import (
    AddressOption,
    CodecOption,
    DeadlineOption,
    DeviceOption,
    DryRunOption,
    Dtype,
    DtypeOption,
    Engine,
    EngineOption,
    ExtendOption,
    LimitOption,
    MaxRejectsOption,
    PackFramesOption,
    PartOption,
    SpaceCheckOption,
    WorkersOption,
)

NAME = "tokenize"
EXAMPLE = "codectok tokenize shards/ tokens/ --codec codec/"


def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, patterns, audio files, WebDataset tars, manifests, or URLs; NAME=SOURCE names a dataset."
        ),
    ],
    output: Annotated[str, typer.Argument(help="Folder or URL for the table: new, or of the same job to go on.")],
    codec: CodecOption,
    device: DeviceOption = "auto",
    dtype: DtypeOption = Dtype.FLOAT32,
    pack_frames: PackFramesOption = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Longer recordings become several rows, slices of their codes.")
    ] = None,
    encoder_threads: Annotated[int, typer.Option(help="Threads of each worker that encodes on a CPU.")] = 1,
    part_seconds: Annotated[
        float | None,
        typer.Option(help="Audio in one part, estimated from file sizes.", show_default="an hour; six on a GPU"),
    ] = None,
    workers: WorkersOption = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs to use; by default all of the machine or cluster.")] = None,
    engine: EngineOption = Engine.RAY,
    address: AddressOption = None,
    part: PartOption = None,
    limit: LimitOption = None,
    extend: ExtendOption = False,
    max_rejects: MaxRejectsOption = 0.1,
    deadline_hours: DeadlineOption = 6.0,
    dry_run: DryRunOption = False,
    space_check: SpaceCheckOption = True,
) -> None:
    """Encode audio files and tars into a table of tokens (Parquet)."""
    from codectok.pipelines.tokenize import TokenizeJob, TokenizeOptions

    from .jobs import JobChoices, run_and_report

    options = TokenizeOptions(codec, device, dtype.value, pack_frames, max_seconds, encoder_threads, part_seconds)
    job = TokenizeJob(options)
    choices = JobChoices(
        engine, workers, address, part, limit, extend, max_rejects, deadline_hours, dry_run, space_check, gpus
    )
    run_and_report(job, sources, output, choices)
