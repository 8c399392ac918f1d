"""Reading audio files with libsndfile, or ffmpeg where that must be, and writing them."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from torch import Tensor

from codectok.atomic import replacing
from codectok.errors import AudioError, CodectokError, InputError, is_lasting
from codectok.names import printable

from . import ffmpeg
from .mp3 import as_pipe, is_mp3_without_length
from .resample import resample_blocks
from .waveform import check_finite, mono_blocks

# What libsndfile does not read goes through ffmpeg; where that is missing, it is reported and not passed over.
FFMPEG_SUFFIXES = frozenset(
    [".m4a", ".m4b", ".aac", ".wma", ".webm", ".amr", ".ape", ".wv", ".mka", ".mp4", ".mkv", ".mov", ".ac3", ".3gp"]
)
# A file is taken for audio by its suffix; what it really is shows when it is opened.
AUDIO_SUFFIXES = FFMPEG_SUFFIXES | frozenset(
    [
        ".wav",
        ".wave",
        ".flac",
        ".mp3",
        ".ogg",
        ".oga",
        ".opus",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".snd",
        ".caf",
        ".w64",
        ".rf64",
        ".voc",
    ]
)
BLOCK_FRAMES = 1 << 16  # what stays in a processor's cache is resampled faster
READ_BYTES = 1 << 20
UNKNOWN_LENGTH = 1 << 62
# libsndfile shortens a cut-off WAV or AIFF to what is there and notes it only in its log.
CUT_OFF = re.compile(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
# Programs that write to a pipe leave such a size in the header, since they can't know it.
STREAMED_SIZE = 0x7FFF_0000

SAMPLE_RATES = range(1000, 768_001)

AudioFormat = Literal["flac", "wav"]


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says."""

    sample_rate: int
    channels: int
    n_samples: int
    container: str
    encoding: str

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.n_samples / self.sample_rate


def is_audio_path(path: str | Path) -> bool:
    """Whether the suffix is that of an audio file."""
    return Path(path).suffix.lower() in AUDIO_SUFFIXES


def audio_info(path: Path) -> AudioInfo:
    """Read the header of an audio file; `AudioError` if it has none."""
    where = printable(path)
    if _needs_ffmpeg(path, where):
        with ffmpeg.decoding(path, where) as stream:
            n_samples = sum(len(block) for block in stream.blocks(BLOCK_FRAMES))
        return AudioInfo(stream.sample_rate, stream.channels, n_samples, path.suffix[1:].upper(), "read by ffmpeg")
    with _opened(path, where) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames, file.format, file.subtype)


def read_audio(source: Path | bytes, sample_rate: int, name: str | None = None) -> np.ndarray:
    """Decode `source` whole, as `stream_audio` does: mono float32 [n] at `sample_rate` Hz."""
    return np.concatenate(list(stream_audio(source, sample_rate, name)))


def stream_audio(source: Path | bytes, sample_rate: int, name: str | None = None) -> Generator[np.ndarray, None, None]:
    """Decode `source` (a path, or a file's bytes) to blocks of mono float32 [n] at `sample_rate` Hz.

    Channels are averaged and the rate is converted with soxr HQ block by block, so that memory does not grow with the
    file. `name` stands for the source in error messages. Damage shows when its block is reached.

    Raises:
        AudioError: with reason "unreadable" (no audio), "unsupported", "empty", "decode_error" (damaged or cut off),
            "not_finite".
        OSError: the disk or the network does not give the file now, but may do so later.
    """
    where = name or (printable(source) if isinstance(source, Path) else "The audio")
    empty = True
    try:
        with _decoding(source, where) as (source_rate, channel_blocks):
            if source_rate not in SAMPLE_RATES:
                raise AudioError(f"{where} has an impossible sample rate of {source_rate} Hz.", "unsupported")
            for block in resample_blocks(_mono_blocks(channel_blocks, where), source_rate, sample_rate):
                empty = empty and len(block) == 0
                yield block
    except AudioError as error:
        if isinstance(source, Path) and error.reason in ("unreadable", "decode_error"):
            _check_that_it_can_be_read(source)
        raise
    if empty:
        raise AudioError(f"{where} has no samples.", "empty")


def encode_audio(samples: np.ndarray, sample_rate: int, audio_format: AudioFormat) -> bytes:
    """The bytes of a mono PCM-16 file with `samples` [n] in [-1, 1]; louder ones are clipped.

    Samples that were read from such a file come out as they were: libsndfile's own conversion would scale them.
    """
    buffer = io.BytesIO()
    scaled = np.clip(np.rint(samples * 32_768), -32_768, 32_767).astype(np.int16)
    soundfile.write(buffer, scaled, sample_rate, format=audio_format.upper(), subtype="PCM_16")
    return buffer.getvalue()


def write_audio(path: Path, blocks: Iterable[Tensor | np.ndarray], sample_rate: int) -> int:
    """Write a clip that arrives in `blocks` [n] to `path` as mono PCM-16 and return its length in samples.

    The suffix (.wav, .flac) decides the format; samples beyond [-1, 1] are clipped.
    """
    check_output(path)
    written = 0
    with replacing(path) as temporary:
        kind = path.suffix[1:].upper()
        try:
            with soundfile.SoundFile(temporary, "w", sample_rate, 1, "PCM_16", format=kind) as file:
                for block in mono_blocks(blocks):
                    file.write(block)
                    written += len(block)
            complete = soundfile.info(temporary).frames == written
        except soundfile.LibsndfileError:
            complete = False
        if not complete:
            raise CodectokError(f"{path} cannot be written to its end; is the disk full?")
    return written


def check_output(path: Path) -> None:
    """Refuse a name that `write_audio` would not write to."""
    if not is_output_path(path):
        raise InputError(f"{path} must end in .wav or .flac.")
    if path.exists():
        raise InputError(f"{path} already exists; choose another name.")


def is_output_path(path: Path) -> bool:
    """Whether the suffix is one that `write_audio` writes."""
    return path.suffix.lower() in (".wav", ".flac")


def _check_that_it_can_be_read(path: Path) -> None:
    """Raise the system's error where a decoder was not given all bytes, which it takes for a damaged file."""
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            while file.read(READ_BYTES):
                pass
    except OSError as error:
        if not is_lasting(error):
            raise


Blocks = Iterator[np.ndarray]


@contextmanager
def _decoding(source: Path | bytes, where: str) -> Iterator[tuple[int, Blocks]]:
    """Sample rate and blocks [n, channels] of whatever can be read."""
    if _needs_ffmpeg(source, where):
        with ffmpeg.decoding(source, where) as stream:
            yield stream.sample_rate, stream.blocks(BLOCK_FRAMES)
    else:
        with _opened(source, where) as file:
            yield file.samplerate, _blocks(file, where)


def _needs_ffmpeg(source: Path | bytes, where: str) -> bool:
    """Whether only ffmpeg may know the format; an `AudioError` where it is missing."""
    # Bytes out of a tar are called by their name in it and, in parentheses, their key.
    names = [source] if isinstance(source, Path) else [Path(where), Path(where.rpartition(" (")[0])]
    if not any(name.suffix.lower() in FFMPEG_SUFFIXES for name in names):
        return False
    if isinstance(source, Path) and not source.is_file():
        return False  # whoever opens it says what is wrong
    if not ffmpeg.is_installed():
        message = f"{where} is in a format that only ffmpeg reads; install ffmpeg, or convert it to FLAC or WAV first."
        raise AudioError(message, "unsupported")
    return True


@contextmanager
def _opened(source: Path | bytes, where: str) -> Iterator[soundfile.SoundFile]:
    with ExitStack() as stack:
        try:
            file = _open(source, where, stack)
        except OSError as error:
            if not is_lasting(error):
                raise
            raise AudioError(f"{where} cannot be read: {error.strerror or error}.", "unreadable") from None
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{where} is no audio file that can be read: {_reason(error)}", "unreadable") from None
        yield file


def _open(source: Path | bytes, where: str, stack: ExitStack) -> soundfile.SoundFile:
    if isinstance(source, Path) and source.stat().st_size == 0:
        raise AudioError(f"{where} is an empty file.", "empty")
    if isinstance(source, Path) and source.suffix.lower() == ".raw":
        raise AudioError(f"{where} has no header; convert it to FLAC or WAV first.", "unsupported")
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        without_length = is_mp3_without_length(file)
    if without_length:
        # libsndfile would guess the length from the first frames and stop there; a pipe has no length.
        pipe = stack.enter_context(as_pipe(source))
        return stack.enter_context(soundfile.SoundFile(pipe, closefd=False))
    # As bytes, since soundfile can't take a name that is no UTF-8.
    return stack.enter_context(
        soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else os.fsencode(source))
    )


def _mono_blocks(blocks: Blocks, where: str) -> Blocks:
    """The average [n] of all channels of `blocks` [n, channels]."""
    found = 0
    for block in blocks:
        check_finite(block, where, found)
        found += len(block)
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _blocks(file: soundfile.SoundFile, where: str) -> Blocks:
    """Blocks [n, channels] of a file; an `AudioError` where the data ends before the header says."""
    expected, found = file.frames, 0
    shortened = CUT_OFF.search(file.extra_info)
    if shortened and int(shortened[2]) < int(shortened[1]) < STREAMED_SIZE:
        raise AudioError(f"{where} is cut off: it has {shortened[2]} of {shortened[1]} bytes.", "decode_error")
    while True:
        try:
            block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{where} cannot be decoded: {_reason(error)}", "decode_error") from None
        if len(block) == 0:
            break
        found += len(block)
        yield block
    if found < expected < UNKNOWN_LENGTH:
        raise AudioError(f"{where} is cut off: it has {found} of {expected} samples.", "decode_error")


def _reason(error: soundfile.LibsndfileError) -> str:
    return error.error_string.strip().rstrip(".") + "."
