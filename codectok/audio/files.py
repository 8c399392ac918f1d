"""Reading audio files with libsndfile or ffmpeg, and writing them."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from torch import Tensor

from codectok.atomic import replacing
from codectok.choices import AudioFormat
from codectok.errors import AudioError, CodectokError, InputError, is_lasting
from codectok.names import printable

from .decoding import FFMPEG_SUFFIXES, decoded_streams
from .notes import DecodingNotes
from .resample import resample_blocks
from .waveform import check_finite, mono_blocks

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
READ_BYTES = 1 << 20
SAMPLE_RATES = range(1000, 768_001)


@dataclass(frozen=True)
class AudioInfo:
    """Format of an audio file, and the number of its samples.

    Attributes:
        sample_rate, channels: of the last stream; the rate in Hz.
        n_samples: samples per channel of all streams, counted by decoding, since headers may be wrong.
        container: name of the file format.
        encoding: name of the sample encoding.
        seconds: duration of all streams.
        streams: number of streams that follow one another in the file.
        damage: why the samples end before the file does; None if it is whole.
    """

    sample_rate: int
    channels: int
    n_samples: int
    container: str
    encoding: str
    seconds: float
    streams: int = 1
    damage: str | None = None


def is_audio_path(path: str | Path) -> bool:
    """Return True if the suffix is one of an audio file."""
    return Path(path).suffix.lower() in AUDIO_SUFFIXES


def audio_info(path: Path) -> AudioInfo:
    """Read the format of an audio file, and count its samples.

    Raises:
        AudioError: the file cannot be read as audio.
    """
    lengths: list[int] = []
    seconds, stream, damage = 0.0, None, None
    try:
        for stream in decoded_streams(path, printable(path), DecodingNotes()):
            lengths.append(0)
            for block in stream.blocks:
                lengths[-1] += len(block)
                seconds += len(block) / stream.sample_rate
    except AudioError as error:
        if stream is None:
            raise
        damage = str(error)
    if stream is None:
        raise AudioError(f"{printable(path)} has no samples.", "empty")
    n_samples, streams = sum(lengths), len(lengths)
    container, encoding = stream.container, stream.encoding
    return AudioInfo(stream.sample_rate, stream.channels, n_samples, container, encoding, seconds, streams, damage)


def read_audio(source: Path | bytes, sample_rate: int, name: str | None = None) -> np.ndarray:
    """Decode all of `source` to mono float32 [n] at `sample_rate` Hz; see `stream_audio`."""
    return np.concatenate(list(stream_audio(source, sample_rate, name)))


def stream_audio(
    source: Path | bytes, sample_rate: int, name: str | None = None, notes: DecodingNotes | None = None
) -> Generator[np.ndarray, None, None]:
    """Decode `source`, a path or the bytes of a file, to blocks of mono float32 [n] at `sample_rate` Hz.

    Channels are averaged and the rate is converted with soxr HQ block by block, so memory does not grow with the file.
    Streams that follow one another in a file are decoded in turn, each from its own rate. `name` stands for the source
    in messages, and `notes` receives what the samples do not show. Damage raises an error after all samples before it.

    Raises:
        AudioError: with the reason "unreadable" (not audio), "unsupported", "empty", "decode_error" (damaged or cut
            off) or "not_finite".
        OSError: the disk or the network failed; another try may succeed.
    """
    where = name or (printable(source) if isinstance(source, Path) else "The audio")
    n_samples = 0
    try:
        for stream in decoded_streams(source, where, notes or DecodingNotes()):
            if stream.sample_rate not in SAMPLE_RATES:
                raise AudioError(f"{where} has an impossible sample rate of {stream.sample_rate} Hz.", "unsupported")
            mono = _UntilError(_mono_blocks(stream.blocks, where))
            for block in resample_blocks(mono, stream.sample_rate, sample_rate):
                # Averaging and resampling overflow for samples near the largest float32.
                check_finite(block, where, n_samples)
                n_samples += len(block)
                yield block
            if mono.error is not None:
                raise mono.error
    except AudioError as error:
        if isinstance(source, Path) and error.reason in ("unreadable", "decode_error"):
            _raise_read_errors(source)
        raise
    if n_samples == 0:
        raise AudioError(f"{where} has no samples.", "empty")


class _UntilError:
    """Iterates over blocks up to an `AudioError`, which is kept, so that a resampler returns its last samples."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self.error: AudioError | None = None
        self._blocks = blocks

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            yield from self._blocks
        except AudioError as error:
            self.error = error


def _mono_blocks(blocks: Iterator[np.ndarray], where: str) -> Iterator[np.ndarray]:
    """Average the channels of `blocks` [n, channels]."""
    found = 0
    for block in blocks:
        check_finite(block, where, found)
        found += len(block)
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def encode_audio(samples: np.ndarray, sample_rate: int, audio_format: AudioFormat) -> bytes:
    """Encode `samples` [n] in [-1, 1] as the bytes of a mono PCM-16 file; louder samples are clipped.

    Samples read from a PCM-16 file are written unchanged; libsndfile's own conversion would scale them.
    """
    buffer = io.BytesIO()
    with np.errstate(over="ignore"):  # of samples that are clipped anyway
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
