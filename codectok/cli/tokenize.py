"""`codectok tokenize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    AddressOption,
    CodecOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    Engine,
    EngineOption,
    PackFramesOption,
    WorkersOption,
)

NAME = "tokenize"
EXAMPLE = "codectok tokenize shards/ tokens/ --codec codec/"


def run(
    sources: Annotated[
        list[str], typer.Argument(help="Folders with audio files or WebDataset tars; NAME=FOLDER names a dataset.")
    ],
    output: Annotated[Path, typer.Argument(help="Folder for the table, new or empty.")],
    codec: CodecOption,
    device: DeviceOption = "auto",
    dtype: DtypeOption = Dtype.FLOAT32,
    pack_frames: PackFramesOption = None,
    part_seconds: Annotated[float, typer.Option(help="Audio in one part, estimated from file sizes.")] = 3600.0,
    workers: WorkersOption = None,
    engine: EngineOption = Engine.RAY,
    address: AddressOption = None,
) -> None:
    """Encode audio files and tars into a table of tokens (Parquet)."""
    from codectok.pipelines.sources import cut_into_units, list_sources
    from codectok.pipelines.tokenize import TokenizeJob, TokenizeOptions

    from .jobs import run_and_report

    listing = list_sources(sources, kinds=("audio", "tar"))
    job = TokenizeJob(TokenizeOptions(codec, device, dtype.value, pack_frames, part_seconds))
    units = cut_into_units(listing.sources, part_seconds)
    gpus_per_worker = 0.0 if job.device_class == "cpu" else 1.0
    run_and_report(job, listing, units, output, engine, workers, address, gpus_per_worker)
