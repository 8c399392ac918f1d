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
from codectok.audio.channels.selection import channel_count, counted, one_channel, too_many_channels
from codectok.choices import AudioFormat
from codectok.errors import AudioError, CodectokError, InputError, is_lasting
from codectok.names import printable
from codectok.reading import reading

from .decoding import decoded_streams
from .notes import DecodingNotes
from .resample import resample_blocks
from .scaling import file_divisor, is_float, scaled
from .sound import MIXED, SoundOptions
from .waveform import MAX_CHANNELS, check_finite, mono_blocks

# Names of audio files, and of films, which may have no sound. Other files are opened to see if they are audio.
_AUDIO_NAMES = """
    wav wave flac mp3 ogg oga opus aif aiff aifc au snd caf w64 rf64 bwf voc sph m4a m4b aac wma amr ape wv mka ac3 tta
    mp2 spx
"""
_FILM_NAMES = "mp4 m4v mkv mov webm avi mpg mpeg ts mts m2ts vob flv f4v wmv asf 3gp 3g2 ogv ogm mxf"
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _AUDIO_NAMES.split())
FILM_SUFFIXES = frozenset(f".{name}" for name in _FILM_NAMES.split())
READ_BYTES = 1 << 20
SAMPLE_RATES = range(1000, 768_001)
# In samples: the header of a WAV file counts bytes in 32 bits. A clip may be some minutes longer than its `seconds`.
LARGEST_WAV = (1 << 31) - (1 << 24)


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
    """Return True if the suffix is one of an audio file or a film."""
    suffix = Path(path).suffix.lower()
    return suffix in AUDIO_SUFFIXES or suffix in FILM_SUFFIXES


def is_film_path(path: str | Path) -> bool:
    """Return True if the suffix is one of a film, which may have no sound."""
    return Path(path).suffix.lower() in FILM_SUFFIXES


def audio_info(path: Path) -> AudioInfo:
    """Read the format of an audio file, and count its samples.

    Raises:
        AudioError: the file cannot be read as audio.
    """
    lengths: list[int] = []
    seconds, stream, damage = 0.0, None, None
    try:
        with reading(printable(path), (soundfile.SoundFileError,)):
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


def read_audio(
    source: Path | bytes, sample_rate: int, name: str | None = None, sound: SoundOptions = MIXED
) -> np.ndarray:
    """Decode all of `source` to mono float32 [n] at `sample_rate` Hz, or to [channels, n] for each channel.

    See `stream_audio`.

    Raises:
        AudioError: "cancelled" as well, if channels cancel each other and `sound` rejects this.
    """
    notes = DecodingNotes()
    samples = np.concatenate(list(stream_audio(source, sample_rate, name, notes, sound)), axis=-1)
    sound.refuse_cancelled(notes, 0.0, samples.shape[-1] / sample_rate, _where(source, name))
    return samples


def stream_audio(
    source: Path | bytes,
    sample_rate: int,
    name: str | None = None,
    notes: DecodingNotes | None = None,
    sound: SoundOptions = MIXED,
) -> Generator[np.ndarray, None, None]:
    """Decode `source`, a path or the bytes of a file, to blocks of mono float32 [n] at `sample_rate` Hz.

    Channels are mixed, or chosen, as `sound` says; blocks of each channel are [channels, n]. The rate is converted with
    soxr HQ block by block, so memory does not grow with the file. Streams that follow one another in a file are
    decoded in turn, each from its own rate. `name` stands for the source in messages, and `notes` receives what the
    samples do not show: also where channels cancel each other, which the caller may reject. Damage raises an error
    after all samples before it.

    Raises:
        AudioError: with the reason "unreadable" (not audio), "unsupported" (also a channel that the file lacks),
            "empty", "decode_error" (damaged or cut off), "not_finite", "clipped" (floats far beyond full scale),
            "too_long" or "too_large".
        OSError: the disk or the network failed; another try may succeed.
    """
    where, notes = _where(source, name), notes or DecodingNotes()
    with reading(where, (soundfile.SoundFileError,)):
        if sound.channel == "each":
            yield from _each_channel(source, sample_rate, where, notes, sound)
        else:
            yield from _mono(source, sample_rate, where, notes, sound)


def _mono(
    source: Path | bytes, sample_rate: int, where: str, notes: DecodingNotes, sound: SoundOptions
) -> Iterator[np.ndarray]:
    """Decode a file to blocks [n], up to the longest duration that is read."""
    n_samples, seconds = 0, 0.0
    longest = round(sound.longest_seconds * sample_rate)
    divisor: float | None = None
    try:
        for stream in decoded_streams(source, where, notes):
            if stream.sample_rate not in SAMPLE_RATES:
                raise AudioError(f"{where} has an impossible sample rate of {stream.sample_rate} Hz.", "unsupported")
            notes.sample_rate = min(notes.sample_rate or stream.sample_rate, stream.sample_rate)
            may_be_scaled = is_float(stream.encoding, sound.scale)
            if may_be_scaled and divisor is None:
                divisor = file_divisor(source, where, sound.scale)
            raw = _UntilError(scaled(stream.blocks, divisor if may_be_scaled else None, stream.sample_rate, where))
            mono = counted(one_channel(raw, stream, sound, notes, seconds, where), notes, where)
            for block in resample_blocks(mono, stream.sample_rate, sample_rate):
                # Averaging and resampling overflow for samples near the largest float32.
                check_finite(block, where, n_samples)
                n_samples += len(block)
                if n_samples > longest:
                    yield block[: len(block) - (n_samples - longest)]
                    message = f"{where} is longer than {sound.longest_seconds:,g} s (see --max-file-seconds)."
                    raise AudioError(message, "too_long")
                yield block
            if raw.error is not None:
                raise raw.error
            seconds += raw.n_samples / stream.sample_rate
    except AudioError as error:
        if isinstance(source, Path) and error.reason in ("unreadable", "decode_error"):
            _raise_read_errors(source)
        raise
    if n_samples == 0:
        raise AudioError(f"{where} has no samples.", "empty")


def _where(source: Path | bytes, name: str | None) -> str:
    return name or (printable(source) if isinstance(source, Path) else "The audio")


def _each_channel(
    source: Path | bytes, sample_rate: int, where: str, notes: DecodingNotes, sound: SoundOptions
) -> Iterator[np.ndarray]:
    """Decode a file once for each of its channels, at the same time; blocks are [channels, n]."""
    count = max(1, channel_count(source, where))
    if count > MAX_CHANNELS:
        raise too_many_channels(count, where)
    several = [notes, *(DecodingNotes() for _ in range(count - 1))]
    decoders = [stream_audio(source, sample_rate, where, several[i], sound.for_channel(i)) for i in range(count)]
    for blocks in zip(*decoders, strict=True):
        yield np.stack(blocks)


class _UntilError:
    """Iterates over blocks up to an `AudioError`, which is kept, so that a resampler returns its last samples."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self.error: AudioError | None = None
        self.n_samples = 0
        self._blocks = blocks

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            for block in self._blocks:
                self.n_samples += len(block)
                yield block
        except AudioError as error:
            self.error = error


def encode_audio(samples: np.ndarray, sample_rate: int, audio_format: AudioFormat) -> bytes:
    """Encode `samples` [n] in [-1, 1] as the bytes of a mono PCM-16 file; louder samples are clipped.

    Samples read from a PCM-16 file are written unchanged; libsndfile's own conversion would scale them.
    """
    buffer = io.BytesIO()
    with np.errstate(over="ignore"):  # of samples that are clipped anyway
        scaled = np.clip(np.rint(samples * 32_768), -32_768, 32_767).astype(np.int16)
    soundfile.write(buffer, scaled, sample_rate, format=audio_format.upper(), subtype="PCM_16")
    return buffer.getvalue()


def write_audio(
    path: Path,
    blocks: Iterable[Tensor | np.ndarray],
    sample_rate: int,
    seconds: float | None = None,
    overwrite: bool = False,
) -> int:
    """Write `blocks` [n] of a clip to `path` as mono PCM-16, and return its length in samples.

    The suffix (.wav or .flac) decides the format. Samples beyond [-1, 1] are clipped. A WAV file that
    `seconds`, the duration of the clip, makes too large for its header (4 GB, a day at 24 kHz) becomes RF64.
    `overwrite` replaces an existing file.

    Raises:
        InputError: the suffix is another one, `path` exists, or the blocks of unknown duration are too many.
        CodectokError: the file could not be written completely.
    """
    check_output(path, overwrite)
    written = 0
    with replacing(path) as temporary:
        kind = path.suffix[1:].upper()
        if kind == "WAV" and seconds is not None and seconds * sample_rate > LARGEST_WAV:
            kind = "RF64"
        try:
            with soundfile.SoundFile(temporary, "w", sample_rate, 1, "PCM_16", format=kind) as file:
                for block in mono_blocks(blocks):
                    written += len(block)
                    if kind == "WAV" and written > LARGEST_WAV:
                        raise InputError(f"{path} is too long for a WAV file; give its seconds, or choose .flac.")
                    file.write(block)
            complete = soundfile.info(temporary).frames == written
        except soundfile.LibsndfileError:
            complete = False
        if not complete:
            raise CodectokError(f"{path} could not be written completely; is the disk full?")
    return written


def check_output(path: Path, overwrite: bool = False) -> None:
    """Raise `InputError` if `write_audio` would refuse `path`."""
    if not is_output_path(path):
        raise InputError(f"{path} must end in .wav or .flac.")
    if path.exists() and not overwrite:
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
