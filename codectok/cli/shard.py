"""`codectok shard`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import AddressOption, Engine, EngineOption, WorkersOption

NAME = "shard"
EXAMPLE = "codectok shard recordings/ music/ shards/ --min-seconds 2 --max-seconds 10"


class SegmenterName(StrEnum):
    """How recordings are cut."""

    QUIET = "quiet"
    FIXED = "fixed"


class FormatName(StrEnum):
    """File format of segments."""

    FLAC = "flac"
    WAV = "wav"


def run(
    sources: Annotated[list[str], typer.Argument(help="Folders or audio files; NAME=FOLDER names a dataset.")],
    output: Annotated[Path, typer.Argument(help="Folder for the tars, new or empty.")],
    min_seconds: Annotated[float, typer.Option(help="Shortest segment.")] = 2.0,
    max_seconds: Annotated[float, typer.Option(help="Longest segment.")] = 10.0,
    sample_rate: Annotated[int, typer.Option(help="Sample rate of segments in Hz.")] = 24_000,
    segmenter: Annotated[
        SegmenterName, typer.Option(help="Cut at the quietest points, or all to one length.")
    ] = SegmenterName.QUIET,
    audio_format: Annotated[FormatName, typer.Option("--format", help="File format of segments.")] = FormatName.FLAC,
    shard_seconds: Annotated[float, typer.Option(help="Audio in one tar, estimated from file sizes.")] = 3600.0,
    workers: WorkersOption = None,
    engine: EngineOption = Engine.RAY,
    address: AddressOption = None,
) -> None:
    """Cut audio files into segments and write them as WebDataset tars."""
    from codectok.pipelines.shard import ShardJob, ShardOptions
    from codectok.pipelines.sources import cut_into_units, list_sources

    from .jobs import run_and_report

    options = ShardOptions(min_seconds, max_seconds, sample_rate, segmenter.value, audio_format.value, shard_seconds)
    listing = list_sources(sources, kinds=("audio",))
    units = cut_into_units(listing.sources, shard_seconds)
    run_and_report(ShardJob(options), listing, units, output, engine, workers, address)
