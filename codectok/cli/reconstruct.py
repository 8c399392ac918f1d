"""`codectok reconstruct`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codectok.errors import InputError
from codectok.formatting import format_duration

from .console import facts_table
from .options import (
    CancelledOption,
    ChannelOption,
    DeviceOption,
    DtypeOption,
    KernelsOption,
    OptionalCodecOption,
    ScaleOption,
    codec_or_default,
)

NAME = "reconstruct"
EXAMPLE = "codectok reconstruct speech.wav again.wav"


def run(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="An audio file.")],
    output: Annotated[Path, typer.Argument(help="A .wav or .flac file.")],
    codec: OptionalCodecOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    kernels: KernelsOption = "auto",
    channel: ChannelOption = "mix",
    cancelled: CancelledOption = "first",
    scale: ScaleOption = "refuse",
) -> None:
    """Encode and decode an audio file, and show the distance between the two."""
    import torch

    from codectok.atomic import remove_leftovers
    from codectok.audio.files import check_output, read_audio, write_audio
    from codectok.audio.sound import SoundOptions
    from codectok.evaluation.metrics.signal import log_mel_error, log_mel_of
    from codectok.loading import load_codec

    check_output(output)
    sound = SoundOptions.parse(channel, cancelled, scale)
    if sound.channel == "each":
        raise InputError("A reconstruction has one channel; give --channel mix or a number.")
    loaded = load_codec(codec_or_default(codec), device, dtype, kernels=kernels)
    rate = loaded.decoded_sample_rate
    encoded = torch.from_numpy(read_audio(source, loaded.sample_rate, sound=sound))
    codes = loaded.encode(encoded, loaded.sample_rate)
    # Compared at the decoded rate, and read again for it: resampling twice would not be the same.
    samples = encoded if rate == loaded.sample_rate else torch.from_numpy(read_audio(source, rate, sound=sound))
    waveform = loaded.decode_aligned(codes)[: len(samples)]
    remove_leftovers(output)
    write_audio(output, [waveform], rate, len(waveform) / rate)
    facts_table(
        "codectok reconstruct",
        {
            "output": output,
            "audio": format_duration(len(waveform) / rate),
            "codes": f"{codes.numel():,}, {len(torch.unique(codes)):,} different of {loaded.codebook_size:,}",
            "mel error": f"{log_mel_error(log_mel_of(loaded), samples, waveform):.4f}"
            " (mean absolute difference of natural log-mels)",
        },
    )
