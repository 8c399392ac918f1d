"""`codectok encode`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.errors import AudioError, CodectokError
from codectok.formatting import format_duration, megabytes

from .console import facts_table, progress, warn
from .options import (
    CancelledOption,
    ChannelOption,
    DeviceOption,
    DtypeOption,
    EncodingOption,
    KernelsOption,
    MaxFileBytesOption,
    MaxFileSecondsOption,
    OptionalCodecOption,
    ScaleOption,
    StrictOption,
    codec_or_default,
)

if TYPE_CHECKING:
    from codectok.sources.clip import Clip
    from codectok.tokens.table import TokenRow

NAME = "encode"
EXAMPLE = "codectok encode speech.wav"


def run(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Audio files, or folders of them; then the .npz or .parquet file to write. Without it, the output is"
            " named after the first input.",
        ),
    ],
    codec: OptionalCodecOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    kernels: KernelsOption = "auto",
    channel: ChannelOption = "mix",
    cancelled: CancelledOption = "first",
    scale: ScaleOption = "refuse",
    strict: StrictOption = False,
    encoding: EncodingOption = None,
    max_file_bytes: MaxFileBytesOption = None,
    max_file_seconds: MaxFileSecondsOption = None,
) -> None:
    """Encode audio files into one file of codes."""
    from codectok.atomic import remove_leftovers
    from codectok.audio.sound import SoundOptions
    from codectok.loading import load_codec
    from codectok.sources.clips import clip_of
    from codectok.sources.listing.arguments import parse_arguments
    from codectok.sources.listing.ordering import ordered_sources
    from codectok.sources.listing.sources import list_sources
    from codectok.sources.source import check_max_bytes
    from codectok.tokens.clips import DamagedRest, encode_clips
    from codectok.tokens.codes_file import check_codes_path, write_codes
    from codectok.tokens.table import TableMetadata

    inputs, output = _inputs_and_output(arguments)
    check_codes_path(output)
    remove_leftovers(output)
    check_max_bytes(max_file_bytes)
    sound = SoundOptions.parse(channel, cancelled, scale, max_file_seconds)
    listing = list_sources(*parse_arguments(inputs), kinds=("audio",), strict=strict, encoding=encoding)
    sources = [replace(source, max_file_bytes=max_file_bytes) for source in ordered_sources(listing)]
    loaded = load_codec(codec_or_default(codec), device, dtype, encoder_only=True, kernels=kernels)
    skipped: list[AudioError] = []
    seconds, frames = 0.0, 0
    with progress(len(sources), "encode: files") as report:

        def clips() -> Iterator[Clip]:
            for source in sources:
                try:
                    yield clip_of(source)
                except AudioError as error:
                    skipped.append(error)
                    report.advance()

        def rows() -> Iterator[TokenRow]:
            nonlocal seconds, frames
            for _, row in encode_clips(loaded.clip_encoder, clips(), sound):
                if isinstance(row, AudioError):
                    skipped.append(row)
                    report.advance()
                    continue
                assert not isinstance(row, DamagedRest), "only keep_damaged yields it"
                seconds += row.duration
                frames += len(row.codes)
                report.advance(f"({format_duration(seconds)} of audio)")
                yield row
            if not frames:
                # Raised inside the writer, so that it does not write a file without rows.
                raise skipped[0] if len(skipped) == 1 else _nothing_encoded(skipped)

        count = write_codes(output, TableMetadata.of(loaded.describe()), rows())
    for error in skipped:
        warn(f"{error} Skipped.")
    facts_table(
        "codectok encode",
        {
            "output": f"{output} ({megabytes(output.stat().st_size)})",
            "clips": f"{count:,}",
            "audio": format_duration(seconds),
            "codes": f"{frames:,} frames of {loaded.n_codebooks}, {loaded.frame_rate:g} per second",
            "skipped": f"{len(skipped):,} unusable files",
            "ignored": f"{listing.ignored:,} other files",
        },
    )


def _inputs_and_output(arguments: list[str]) -> tuple[list[str], Path]:
    """Split off the last argument if it can only be meant as the output; else name the output after the first input."""
    from codectok.audio.files import is_audio_path
    from codectok.sources.listing.arguments import MAGIC, parse_arguments
    from codectok.storage import is_url
    from codectok.tokens.codes_file import CODES_SUFFIXES

    *inputs, last = arguments
    is_input = Path(last).exists() or is_audio_path(last) or is_url(last) or set(last) & {*MAGIC, "="}
    if inputs and (Path(last).suffix in CODES_SUFFIXES or not is_input):
        return inputs, Path(last)
    (first,), _ = parse_arguments(arguments[:1])
    return arguments, Path(f"{Path(first.pattern).stem if first.kind == 'file' else first.dataset}.npz")


def _nothing_encoded(skipped: list[AudioError]) -> CodectokError:
    for error in skipped:
        warn(str(error))
    return CodectokError(f"None of the {len(skipped)} files could be encoded.")
