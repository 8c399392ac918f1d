"""`codectok shard`."""

from __future__ import annotations

from typing import Annotated

import typer

from codectok.choices import AudioFormat, Segmenter

from .job_choices import JobChoices, with_job_choices
from .options import (
    AudioColumnOption,
    CancelledOption,
    ChannelOption,
    EncodingOption,
    MaxFileBytesOption,
    MaxFileSecondsOption,
    ScaleOption,
)

NAME = "shard"
EXAMPLE = "codectok shard recordings/ music/ shards/ --min-seconds 2 --max-seconds 10"


@with_job_choices
def run(
    sources: Annotated[
        list[str],
        typer.Argument(help="Folders, patterns, audio files, manifests, or URLs; NAME=SOURCE names a dataset."),
    ],
    output: Annotated[str, typer.Argument(help="Folder or URL for the tars: new, or of the same job to resume.")],
    min_seconds: Annotated[float, typer.Option(help="Shortest segment.")] = 2.0,
    max_seconds: Annotated[float, typer.Option(help="Longest segment.")] = 10.0,
    sample_rate: Annotated[int, typer.Option(help="Sample rate of segments in Hz.")] = 24_000,
    segmenter: Annotated[
        Segmenter, typer.Option(help="Cut at the quietest points, cut to a fixed length, or keep only speech.")
    ] = "quiet",
    audio_format: Annotated[AudioFormat, typer.Option("--format", help="File format of segments.")] = "flac",
    shard_seconds: Annotated[float, typer.Option(help="Audio in one tar, estimated from file sizes.")] = 3600.0,
    validation: Annotated[float, typer.Option(help="Share of the files to hold out for validation.")] = 0.0,
    deduplicate: Annotated[
        bool,
        typer.Option("--deduplicate", help="Leave out recordings with the same samples as another (reads all twice)."),
    ] = False,
    channel: ChannelOption = "mix",
    cancelled: CancelledOption = "first",
    scale: ScaleOption = "refuse",
    min_loudness: Annotated[float | None, typer.Option(help="Leave out quieter segments (LUFS).")] = None,
    max_loudness: Annotated[float | None, typer.Option(help="Leave out louder segments (LUFS).")] = None,
    max_clipping: Annotated[
        float | None, typer.Option(help="Leave out segments with a larger share of samples at full scale.")
    ] = None,
    min_bandwidth: Annotated[float | None, typer.Option(help="Leave out segments with a lower bandwidth (Hz).")] = None,
    min_dnsmos: Annotated[float | None, typer.Option(help="Leave out speech with a lower DNSMOS (1 to 5).")] = None,
    encoding: EncodingOption = None,
    audio_column: AudioColumnOption = None,
    max_file_bytes: MaxFileBytesOption = None,
    max_file_seconds: MaxFileSecondsOption = None,
    *,
    choices: JobChoices,
) -> None:
    """Cut audio files into segments and write them as WebDataset tars."""
    from codectok.audio.analysis.quality import QualityLimits
    from codectok.audio.sound import SoundOptions
    from codectok.pipelines.shard.job import ShardJob
    from codectok.pipelines.shard.options import ShardOptions

    from .jobs import run_and_report

    limits = QualityLimits(min_loudness, max_loudness, max_clipping, min_bandwidth, min_dnsmos)
    options = ShardOptions(
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        sample_rate=sample_rate,
        segmenter=segmenter,
        format=audio_format,
        shard_seconds=shard_seconds,
        validation=validation,
        deduplicate=deduplicate,
        quality=limits,
        encoding=encoding,
        audio_column=audio_column,
        max_file_bytes=max_file_bytes,
        sound=SoundOptions.parse(channel, cancelled, scale, max_file_seconds),
    )
    run_and_report(ShardJob(options), sources, output, choices)
