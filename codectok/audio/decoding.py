"""Decoding the streams of a file, with libsndfile or ffmpeg, at their own rates and with all channels."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from codectok.errors import AudioError, is_lasting

from . import ffmpeg
from .framing.detect import layout_of
from .framing.layout import Layout, Stream
from .framing.view import StreamView, as_pipe
from .notes import DecodingNotes
from .positions import positions_in_log, positions_of_mask

# Formats that only ffmpeg reads. Without ffmpeg such files are rejected, not ignored.
FFMPEG_SUFFIXES = frozenset(
    [".m4a", ".m4b", ".aac", ".wma", ".webm", ".amr", ".ape", ".wv", ".mka", ".mp4", ".mkv", ".mov", ".ac3", ".3gp"]
)
BLOCK_FRAMES = 1 << 16  # fits into the processor's cache, which makes resampling faster
# Blocks of this size are read again before damage, so that few of the samples before it are lost.
RESCUE_FRAMES = 64
UNKNOWN_LENGTH = 1 << 62
# libsndfile shortens a cut-off WAV or AIFF without an error and notes it only in its log.
CUT_OFF = re.compile(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
# Programs that write to a pipe leave at least this size in the header, since they cannot know it.
STREAMED_SIZE = 0x7FFF_0000

Blocks = Iterator[np.ndarray]


@dataclass(frozen=True)
class DecodedStream:
    """A stream that is being decoded; read its blocks before the next stream.

    Attributes:
        sample_rate: in Hz.
        channels: number of channels.
        container: name of the file format.
        encoding: name of the sample encoding.
        positions: loudspeaker of each channel (see `positions`); None if channels have none.
        blocks: float32 [n, channels] each; raises `AudioError` at damage, after all samples before it.
    """

    sample_rate: int
    channels: int
    container: str
    encoding: str
    positions: tuple[str, ...] | None
    blocks: Blocks


def decoded_streams(source: Path | bytes, where: str, notes: DecodingNotes) -> Iterator[DecodedStream]:
    """Yield the streams of `source`, a path or the bytes of a file, one after another.

    `where` names the source in messages; `notes` is complete at the end.

    Raises:
        AudioError: "unreadable", "unsupported", "empty", or "decode_error" for damage.
        OSError: the disk failed.
    """
    if _needs_ffmpeg(source, where):
        with ffmpeg.decoding(source, where) as decoded:
            container = Path(where).suffix[1:].upper()
            yield DecodedStream(
                decoded.sample_rate,
                decoded.channels,
                container,
                "read by ffmpeg",
                positions_of_mask(decoded.channels, decoded.channel_mask),
                decoded.blocks(BLOCK_FRAMES),
            )
        return
    layout = _layout(source, where)
    for stream in layout.streams:
        with _opened(source, stream, where) as file:
            positions = positions_in_log(file.channels, file.subtype, file.extra_info)
            blocks = _blocks(file, source, stream, where)
            yield DecodedStream(file.samplerate, file.channels, file.format, file.subtype, positions, blocks)
    notes.unused_bytes += layout.unused_bytes
    if layout.damage is not None:
        raise AudioError(f"{where} {layout.damage.message}.", "decode_error", layout.damage.seconds)


def _needs_ffmpeg(source: Path | bytes, where: str) -> bool:
    """Return True if the suffix is one that only ffmpeg reads; raise `AudioError` if ffmpeg is missing."""
    # Bytes from a tar are named by their member, with their key in parentheses.
    names = [source] if isinstance(source, Path) else [Path(where), Path(where.rpartition(" (")[0])]
    if not any(name.suffix.lower() in FFMPEG_SUFFIXES for name in names):
        return False
    if isinstance(source, Path) and not source.is_file():
        return False  # opening the file raises the error
    if not ffmpeg.is_installed():
        message = f"{where} is in a format that only ffmpeg reads; install ffmpeg, or convert it to FLAC or WAV first."
        raise AudioError(message, "unsupported")
    return True


def _layout(source: Path | bytes, where: str) -> Layout:
    if isinstance(source, Path) and source.suffix.lower() == ".raw" and source.is_file():
        raise AudioError(f"{where} has no header; convert it to FLAC or WAV first.", "unsupported")
    with _file(source, where) as file:
        size = file.seek(0, os.SEEK_END)
        if isinstance(source, Path) and size == 0:
            raise AudioError(f"{where} is an empty file.", "empty")
        return layout_of(file) or Layout("", (Stream(0, size),))


@contextmanager
def _file(source: Path | bytes, where: str) -> Iterator[BinaryIO]:
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        if not is_lasting(error):
            raise
        raise AudioError(f"{where} cannot be read: {error.strerror or error}.", "unreadable") from None
    with file:
        yield file


@contextmanager
def _opened(source: Path | bytes, stream: Stream, where: str) -> Iterator[soundfile.SoundFile]:
    with ExitStack() as stack:
        file = stack.enter_context(_file(source, where))
        whole = stream.start == 0 and stream.end == file.seek(0, os.SEEK_END) and not stream.patches
        file.seek(0)
        view = file if whole else io.BufferedReader(StreamView(file, stream))
        try:
            if stream.piped:
                pipe = stack.enter_context(as_pipe(view))
                sound = stack.enter_context(soundfile.SoundFile(pipe, closefd=False))
            elif whole and isinstance(source, Path):
                # As bytes, since soundfile rejects names that are not UTF-8.
                sound = stack.enter_context(soundfile.SoundFile(os.fsencode(source)))
            else:
                sound = stack.enter_context(soundfile.SoundFile(view))
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{where} is not a readable audio file: {_reason(error)}", "unreadable") from None
        yield sound


def _blocks(file: soundfile.SoundFile, source: Path | bytes, stream: Stream, where: str) -> Blocks:
    """Yield blocks [n, channels] of a stream; raise `AudioError` if it has fewer samples than its header says."""
    expected, found = file.frames if stream.n_samples is None else stream.n_samples, 0
    shortened = CUT_OFF.search(file.extra_info)
    if shortened and int(shortened[2]) < int(shortened[1]) < STREAMED_SIZE:
        raise AudioError(f"{where} is cut off: it has {shortened[2]} of {shortened[1]} bytes.", "decode_error")
    while True:
        try:
            block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            for block in _rescued(source, stream, where, found):
                found += len(block)
                yield block
            missing = (expected - found) / file.samplerate if found < expected < UNKNOWN_LENGTH else None
            raise AudioError(f"{where} cannot be decoded: {_reason(error)}", "decode_error", missing) from None
        if len(block) == 0:
            break
        found += len(block)
        yield block
    if found < expected < UNKNOWN_LENGTH:
        message = f"{where} is cut off: it has {found} of {expected} samples."
        raise AudioError(message, "decode_error", (expected - found) / file.samplerate)


def _rescued(source: Path | bytes, stream: Stream, where: str, position: int) -> Blocks:
    """Decode a damaged stream again, and yield its samples from `position` to the damage in small blocks."""
    with _opened(source, stream, where) as file:
        try:
            while position > 0:
                position -= len(file.read(min(position, BLOCK_FRAMES), dtype="float32", always_2d=True))
            while len(block := file.read(RESCUE_FRAMES, dtype="float32", always_2d=True)):
                yield block
        except soundfile.LibsndfileError:
            return  # the damage is known already


def _reason(error: soundfile.LibsndfileError) -> str:
    message: str = error.error_string
    return message.strip().rstrip(".") + "."
