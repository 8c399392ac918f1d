"""`codectok tokenize`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import (
    AddressOption,
    CodecOption,
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
    part_seconds: Annotated[float, typer.Option(help="Audio in one part, estimated from file sizes.")] = 3600.0,
    workers: WorkersOption = None,
    engine: EngineOption = Engine.RAY,
    address: AddressOption = None,
    part: PartOption = None,
    limit: LimitOption = None,
    extend: ExtendOption = False,
    max_rejects: MaxRejectsOption = 0.1,
    dry_run: DryRunOption = False,
    space_check: SpaceCheckOption = True,
) -> None:
    """Encode audio files and tars into a table of tokens (Parquet)."""
    from codectok.pipelines.tokenize import TokenizeJob, TokenizeOptions

    from .jobs import JobChoices, run_and_report

    job = TokenizeJob(TokenizeOptions(codec, device, dtype.value, pack_frames, part_seconds))
    choices = JobChoices(engine, workers, address, part, limit, extend, max_rejects, dry_run, space_check)
    run_and_report(job, sources, output, choices, gpus_per_worker=0.0 if job.device_class == "cpu" else 1.0)
