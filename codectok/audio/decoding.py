"""Decoding the streams of a file, with libsndfile or ffmpeg, at their own rates and with all channels."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from codectok.audio.channels.positions import positions_in_log, positions_of_mask
from codectok.audio.framing.detect import layout_of
from codectok.audio.framing.layout import Layout, Stream
from codectok.audio.framing.view import StreamView, as_pipe, open_source
from codectok.errors import AudioError, NotAudioError, is_lasting

from .ffmpeg import decoding as ffmpeg
from .notes import DecodingNotes
from .signatures import HEAD_BYTES, is_known_other, signature_of

# Samples without a header: no program can tell their rate and encoding.
HEADERLESS_SUFFIXES = frozenset(
    [".raw", ".pcm", ".vox", ".gsm", ".g722", ".g726", ".g729", ".ul", ".ulaw", ".al", ".alaw", ".sln", ".s16", ".f32"]
)
BELIEVED_SUFFIXES = (".raw", ".mp3")
BLOCK_FRAMES = 1 << 16  # fits into the processor's cache, which makes resampling faster
# Blocks of this size are read again before damage, so that few of the samples before it are lost.
RESCUE_FRAMES = 64
UNKNOWN_LENGTH = 1 << 62
BY_FFMPEG = "decoded by ffmpeg"

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
    layout = _layout(source, where)
    for index, stream in enumerate(layout.streams):
        with ExitStack() as stack:
            try:
                file = stack.enter_context(_opened(source, stream, where, known=bool(layout.container)))
            except NotAudioError:
                decoded = stack.enter_context(_opened_by_ffmpeg(source, stream, where))
                notes.other_tracks += decoded.other_tracks
                blocks = _not_empty(decoded.blocks(BLOCK_FRAMES), where)
                yield DecodedStream(
                    decoded.sample_rate,
                    decoded.channels,
                    decoded.container,
                    f"{decoded.codec}, {BY_FFMPEG}",
                    positions_of_mask(decoded.channels, decoded.channel_mask),
                    # The last stream's error counts all that is missing to the end that the container states.
                    blocks if index + 1 == len(layout.streams) else _with_rest(blocks, layout, index),
                )
                continue
            positions = positions_in_log(file.channels, file.subtype, file.extra_info)
            blocks = _with_rest(_blocks(file, source, stream, where), layout, index)
            yield DecodedStream(file.samplerate, file.channels, file.format, file.subtype, positions, blocks)
    notes.unused_bytes += layout.unused_bytes
    notes.unmarked_ends += layout.unmarked_ends
    if layout.damage is not None:
        raise AudioError(f"{where} {layout.damage.message}.", layout.damage.reason, layout.damage.seconds)


def _not_empty(blocks: Blocks, where: str) -> Blocks:
    """Yield `blocks`; raise `AudioError` if there is none, since the file begins as audio."""
    empty = True
    for block in blocks:
        empty = False
        yield block
    if empty:
        raise AudioError(f"{where} ends in its header.", "unreadable")


def _with_rest(blocks: Blocks, layout: Layout, index: int) -> Blocks:
    """Add the duration of all that follows the stream `index` to an error in its `blocks`."""
    try:
        yield from blocks
    except AudioError as error:
        later = [error.seconds, *(stream.seconds for stream in layout.streams[index + 1 :])]
        if layout.damage is not None:
            later.append(layout.damage.seconds)
        known = [seconds for seconds in later if seconds is not None]
        raise AudioError(str(error), error.reason, sum(known) if len(known) == len(later) else None) from None


@contextmanager
def _opened_by_ffmpeg(source: Path | bytes, stream: Stream, where: str) -> Iterator[ffmpeg.DecodedStream]:
    """Open a stream that libsndfile does not know; raise `AudioError` if it is not audio, or ffmpeg is missing."""
    with _file(source, where) as file:
        whole = stream.start == 0 and stream.end == file.seek(0, os.SEEK_END)
        file.seek(stream.start)
        head = file.read(HEAD_BYTES)
    signature = signature_of(head)
    if not ffmpeg.is_installed():
        if signature is None:
            raise _not_audio(source, where, "is not a file that libsndfile reads, and ffmpeg is not installed")
        message = f"{where} ({signature}) is in an encoding that libsndfile does not read; {ffmpeg.INSTALL}."
        raise AudioError(message, "unsupported")
    start, end = (0, None) if whole else (stream.start, stream.end)
    try:
        with ffmpeg.decoding(ffmpeg.Input(source, where, start, end, signature is not None)) as decoded:
            yield decoded
    except NotAudioError:
        if signature is not None:
            raise
        raise _not_audio(source, where, "is not an audio file: neither libsndfile nor ffmpeg reads it") from None


def _not_audio(source: Path | bytes, where: str, fault: str) -> AudioError:
    """Error of a file in which no format was found; one that is named as bare samples holds sound all the same."""
    # Bytes from a tar are named by their member, with their key in parentheses.
    names = [source] if isinstance(source, Path) else [Path(where), Path(where.rpartition(" (")[0])]
    if any(name.suffix.lower() in HEADERLESS_SUFFIXES for name in names):
        return AudioError(f"{where} has no header; convert it to FLAC or WAV first.", "unsupported")
    return NotAudioError(f"{where} {fault}.")


def _layout(source: Path | bytes, where: str) -> Layout:
    with _file(source, where) as file:
        size = file.seek(0, os.SEEK_END)
        if isinstance(source, Path) and size == 0:
            raise AudioError(f"{where} is an empty file.", "empty")
        file.seek(0)
        head = file.read(HEAD_BYTES)
        if signature_of(head) is None and is_known_other(head):
            raise _not_audio(source, where, "is not an audio file")
        return layout_of(file) or Layout("", (Stream(0, size),))


@contextmanager
def _file(source: Path | bytes, where: str) -> Iterator[BinaryIO]:
    try:
        file = open_source(source)
    except OSError as error:
        if not is_lasting(error):
            raise
        raise AudioError(f"{where} cannot be read: {error.strerror or error}.", "unreadable") from None
    with file:
        yield file


@contextmanager
def _opened(source: Path | bytes, stream: Stream, where: str, known: bool = True) -> Iterator[soundfile.SoundFile]:
    """Open a stream with libsndfile; `known` is False if its layout could not be told."""
    if stream.coded:
        raise NotAudioError(f"{where} is not a file of samples.")
    with ExitStack() as stack:
        file = stack.enter_context(_file(source, where))
        whole = (
            stream.start == 0
            and stream.end == file.seek(0, os.SEEK_END)
            and not (stream.patches or stream.holes or stream.head)
            # Believed by libsndfile or soundfile, so that such a file is opened without its name.
            and not (isinstance(source, Path) and source.suffix.lower() in BELIEVED_SUFFIXES)
        )
        file.seek(0)
        view = io.BufferedReader(StreamView(file, stream))
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
            raise NotAudioError(f"{where} is not a readable audio file: {_reason(error)}") from None
        if sound.format == "MP3" and not known:  # libsndfile finds frames in samples without a header
            raise NotAudioError(f"{where} is not a readable audio file: it has no frames of MPEG audio.")
        if sound.format == "RAW":  # libsndfile guesses it from the name of the file
            raise NotAudioError(f"{where} is not a readable audio file: it has no header.")
        yield sound


def _blocks(file: soundfile.SoundFile, source: Path | bytes, stream: Stream, where: str) -> Blocks:
    """Yield blocks [n, channels] of a stream; raise `AudioError` if it has fewer samples than its header says."""
    expected, found = file.frames if stream.n_samples is None else stream.n_samples, 0
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
