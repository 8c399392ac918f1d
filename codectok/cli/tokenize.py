"""`codectok tokenize`."""

from __future__ import annotations

from typing import Annotated

import typer

from .job_choices import JobChoices, with_job_choices
from .options import (
    AudioColumnOption,
    BatchSecondsOption,
    CancelledOption,
    ChannelOption,
    DeviceOption,
    DtypeOption,
    EncodingOption,
    KernelsOption,
    MaxFileBytesOption,
    MaxFileSecondsOption,
    OptionalCodecOption,
    PackFramesOption,
    ScaleOption,
    codec_or_default,
)

NAME = "tokenize"
EXAMPLE = "codectok tokenize shards/ tokens/"


@with_job_choices
def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, patterns, audio files, WebDataset tars, manifests, or URLs; NAME=SOURCE names a dataset."
        ),
    ],
    output: Annotated[str, typer.Argument(help="Folder or URL for the table: new, or of the same job to resume.")],
    codec: OptionalCodecOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    pack_frames: PackFramesOption = None,
    batch_seconds: BatchSecondsOption = None,
    kernels: KernelsOption = "auto",
    max_seconds: Annotated[
        float | None, typer.Option(help="Slice the codes of longer recordings into several rows.")
    ] = None,
    encoder_threads: Annotated[int, typer.Option(help="Threads of each worker that encodes on a CPU.")] = 1,
    part_seconds: Annotated[
        float | None,
        typer.Option(help="Audio in one part, estimated from file sizes.", show_default="an hour; six on a GPU"),
    ] = None,
    encoding: EncodingOption = None,
    audio_column: AudioColumnOption = None,
    max_file_bytes: MaxFileBytesOption = None,
    max_file_seconds: MaxFileSecondsOption = None,
    channel: ChannelOption = "mix",
    cancelled: CancelledOption = "first",
    scale: ScaleOption = "refuse",
    gpus: Annotated[int | None, typer.Option(help="GPUs to use; all of the machine or cluster by default.")] = None,
    encoders_per_gpu: Annotated[int, typer.Option(help="Copies of the codec on each GPU.")] = 1,
    *,
    choices: JobChoices,
) -> None:
    """Encode audio files and tars into a table of tokens (Parquet)."""
    from .jobs import command_clock, gpu_model_elsewhere, run_and_report

    clock = command_clock()

    from codectok.audio.sound import SoundOptions
    from codectok.pipelines.tokenize.job import TokenizeJob
    from codectok.pipelines.tokenize.options import TokenizeOptions

    options = TokenizeOptions(
        codec=codec_or_default(codec),
        device=device,
        dtype=dtype,
        pack_frames=pack_frames,
        batch_seconds=batch_seconds,
        kernels=kernels,
        encoders_per_gpu=encoders_per_gpu,
        max_seconds=max_seconds,
        encoder_threads=encoder_threads,
        part_seconds=part_seconds,
        encoding=encoding,
        audio_column=audio_column,
        max_file_bytes=max_file_bytes,
        sound=SoundOptions.parse(channel, cancelled, scale, max_file_seconds),
    )
    with clock.during("codec"):
        job = TokenizeJob(options, gpu_model_elsewhere(choices, device))
    run_and_report(job, sources, output, choices, gpus, clock=clock)
