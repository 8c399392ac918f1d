"""Reading audio files with libsndfile or ffmpeg, and writing them."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from torch import Tensor

from codectok.atomic import replacing
from codectok.choices import AudioFormat
from codectok.errors import AudioError, CodectokError, InputError, is_lasting
from codectok.names import printable

from . import ffmpeg
from .mp3 import as_pipe, is_mp3_without_length
from .resample import resample_blocks
from .waveform import check_finite, mono_blocks

# Formats that only ffmpeg reads. Without ffmpeg such files are rejected, not ignored.
FFMPEG_SUFFIXES = frozenset(
    [".m4a", ".m4b", ".aac", ".wma", ".webm", ".amr", ".ape", ".wv", ".mka", ".mp4", ".mkv", ".mov", ".ac3", ".3gp"]
)
# Files are listed by their suffix; their contents are checked when they are opened.
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
BLOCK_FRAMES = 1 << 16  # fits into the processor's cache, which makes resampling faster
READ_BYTES = 1 << 20
UNKNOWN_LENGTH = 1 << 62
# libsndfile shortens a cut-off WAV or AIFF without an error and notes it only in its log.
CUT_OFF = re.compile(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
# Programs that write to a pipe leave at least this size in the header, since they cannot know it.
STREAMED_SIZE = 0x7FFF_0000

SAMPLE_RATES = range(1000, 768_001)


@dataclass(frozen=True)
class AudioInfo:
    """Header of an audio file.

    Attributes:
        sample_rate: in Hz.
        channels: number of channels.
        n_samples: samples per channel.
        container: name of the file format.
        encoding: name of the sample encoding.
    """

    sample_rate: int
    channels: int
    n_samples: int
    container: str
    encoding: str

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.n_samples / self.sample_rate


def is_audio_path(path: str | Path) -> bool:
    """Return True if the suffix is one of an audio file."""
    return Path(path).suffix.lower() in AUDIO_SUFFIXES


def audio_info(path: Path) -> AudioInfo:
    """Read the header of an audio file.

    Raises:
        AudioError: the file cannot be read as audio.
    """
    where = printable(path)
    if _needs_ffmpeg(path, where):
        with ffmpeg.decoding(path, where) as stream:
            n_samples = sum(len(block) for block in stream.blocks(BLOCK_FRAMES))
        return AudioInfo(stream.sample_rate, stream.channels, n_samples, path.suffix[1:].upper(), "read by ffmpeg")
    with _opened(path, where) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames, file.format, file.subtype)


def read_audio(source: Path | bytes, sample_rate: int, name: str | None = None) -> np.ndarray:
    """Decode all of `source` to mono float32 [n] at `sample_rate` Hz; see `stream_audio`."""
    return np.concatenate(list(stream_audio(source, sample_rate, name)))


def stream_audio(source: Path | bytes, sample_rate: int, name: str | None = None) -> Generator[np.ndarray, None, None]:
    """Decode `source`, a path or the bytes of a file, to blocks of mono float32 [n] at `sample_rate` Hz.

    Channels are averaged and the rate is converted with soxr HQ block by block, so memory does not grow with the file.
    `name` stands for the source in messages. Damage raises an error when decoding reaches it.

    Raises:
        AudioError: with the reason "unreadable" (not audio), "unsupported", "empty", "decode_error" (damaged or cut
            off) or "not_finite".
        OSError: the disk or the network failed; another try may succeed.
    """
    where = name or (printable(source) if isinstance(source, Path) else "The audio")
    n_samples = 0
    try:
        with _decoding(source, where) as (source_rate, channel_blocks):
            if source_rate not in SAMPLE_RATES:
                raise AudioError(f"{where} has an impossible sample rate of {source_rate} Hz.", "unsupported")
            for block in resample_blocks(_mono_blocks(channel_blocks, where), source_rate, sample_rate):
                # Averaging and resampling overflow for samples near the largest float32.
                check_finite(block, where, n_samples)
                n_samples += len(block)
                yield block
    except AudioError as error:
        if isinstance(source, Path) and error.reason in ("unreadable", "decode_error"):
            _raise_read_errors(source)
        raise
    if n_samples == 0:
        raise AudioError(f"{where} has no samples.", "empty")


def encode_audio(samples: np.ndarray, sample_rate: int, audio_format: AudioFormat) -> bytes:
    """Encode `samples` [n] in [-1, 1] as the bytes of a mono PCM-16 file; louder samples are clipped.

    Samples read from a PCM-16 file are written unchanged; libsndfile's own conversion would scale them.
    """
    buffer = io.BytesIO()
    scaled = np.clip(np.rint(samples * 32_768), -32_768, 32_767).astype(np.int16)
    soundfile.write(buffer, scaled, sample_rate, format=audio_format.upper(), subtype="PCM_16")
    return buffer.getvalue()


def write_audio(path: Path, blocks: Iterable[Tensor | np.ndarray], sample_rate: int) -> int:
    """Write `blocks` [n] of a clip to `path` as mono PCM-16, and return its length in samples.

    The suffix (.wav or .flac) decides the format. Samples beyond [-1, 1] are clipped.

    Raises:
        InputError: the suffix is another one, or `path` exists.
        CodectokError: the file could not be written completely.
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
            raise CodectokError(f"{path} could not be written completely; is the disk full?")
    return written


def check_output(path: Path) -> None:
    """Raise `InputError` if `write_audio` would refuse `path`."""
    if not is_output_path(path):
        raise InputError(f"{path} must end in .wav or .flac.")
    if path.exists():
        raise InputError(f"{path} already exists; choose another name.")


def is_output_path(path: Path) -> bool:
    """Return True if `write_audio` supports the suffix."""
    return path.suffix.lower() in (".wav", ".flac")


def _raise_read_errors(path: Path) -> None:
    """Read all of `path`, so that a disk error is not reported as a damaged file."""
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
    """Yield the sample rate in Hz and an iterator of blocks float32 [n, channels]."""
    if _needs_ffmpeg(source, where):
        with ffmpeg.decoding(source, where) as stream:
            yield stream.sample_rate, stream.blocks(BLOCK_FRAMES)
    else:
        with _opened(source, where) as file:
            yield file.samplerate, _blocks(file, where)


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
            raise AudioError(f"{where} is not a readable audio file: {_reason(error)}", "unreadable") from None
        yield file


def _open(source: Path | bytes, where: str, stack: ExitStack) -> soundfile.SoundFile:
    if isinstance(source, Path) and source.stat().st_size == 0:
        raise AudioError(f"{where} is an empty file.", "empty")
    if isinstance(source, Path) and source.suffix.lower() == ".raw":
        raise AudioError(f"{where} has no header; convert it to FLAC or WAV first.", "unsupported")
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        without_length = is_mp3_without_length(file)
    if without_length:
        # libsndfile would guess the length from the first frames and stop there. Through a pipe it reads to the end.
        pipe = stack.enter_context(as_pipe(source))
        return stack.enter_context(soundfile.SoundFile(pipe, closefd=False))
    # As bytes, since soundfile rejects names that are not UTF-8.
    return stack.enter_context(
        soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else os.fsencode(source))
    )


def _mono_blocks(blocks: Blocks, where: str) -> Blocks:
    """Average the channels of `blocks` [n, channels]."""
    found = 0
    for block in blocks:
        check_finite(block, where, found)
        found += len(block)
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _blocks(file: soundfile.SoundFile, where: str) -> Blocks:
    """Yield blocks [n, channels] of a file; raise `AudioError` if it has fewer samples than its header says."""
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
    message: str = error.error_string
    return message.strip().rstrip(".") + "."
