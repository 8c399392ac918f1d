"""Training segments: reads, decodes and crops the sample at each position of the stream."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile

from codectok.errors import AudioError

from .augmentation import augment, change_speed, draw_augmentation
from .config import AugmentationConfig, DataConfig
from .sources import SampleAddress, read_audio_files
from .stream import SampleStream

# Keeps the random numbers for crops apart from others drawn with the same seed.
CROP = 1


@dataclass(frozen=True)
class Segment:
    """The segment at a position of the stream.

    Attributes:
        key: of the sample.
        waveform: float32 [segment_samples]; zeros if the sample is damaged.
        error: error of a damaged sample, None if it is usable.
    """

    key: str
    waveform: np.ndarray
    error: str | None = None


class SegmentReader:
    """Reads segments by their position in an endless stream.

    The sample at a position, the crop taken from it, and its augmentation depend on configuration, seed and position
    alone. A run can therefore resume at any position, with any number of workers and ranks.

    Attributes:
        stream: the samples.
        sample_rate: in Hz.
        segment_samples: length of every segment.

    Raises:
        InputError: shards cannot be used.
    """

    def __init__(self, config: DataConfig, sample_rate: int, segment_samples: int, seed: int) -> None:
        self.stream = SampleStream(config, sample_rate, seed)
        self.sample_rate = sample_rate
        self.segment_samples = segment_samples
        self._augmentation = config.augmentation
        self._seed = seed

    def read(self, positions: Sequence[int], out: np.ndarray | None = None) -> list[Segment]:
        """Read the segments at `positions`, into the rows of `out` [n, segment_samples] if given.

        Raises:
            CodectokError: a shard is missing or cannot be reached.
        """
        waveforms = np.empty((len(positions), self.segment_samples), np.float32) if out is None else out
        if self._augmentation is None:
            return self._crops(positions, [1.0] * len(positions), waveforms)
        return self._augmented(positions, waveforms, self._augmentation)

    def _augmented(self, positions: Sequence[int], waveforms: np.ndarray, config: AugmentationConfig) -> list[Segment]:
        drawn = [draw_augmentation(config, self._seed, position) for position in positions]
        segments = self._crops(positions, [each.speed for each in drawn], waveforms)
        places = [each.background_position for each in drawn if each.background_position is not None]
        room = np.empty((len(places), self.segment_samples), np.float32)
        backgrounds = iter(self._crops(places, [1.0] * len(places), room))
        for augmentation, segment in zip(drawn, segments, strict=True):
            background = None if augmentation.background_position is None else next(backgrounds).waveform
            if segment.error is None:
                augment(augmentation, segment.waveform, background, self.sample_rate)
        return segments

    def _crops(self, positions: Sequence[int], speeds: Sequence[float], waveforms: np.ndarray) -> list[Segment]:
        """Read the crops at `positions`, played at `speeds`, into the rows of `waveforms` [n, segment_samples]."""
        addresses = [self.stream.address(position) for position in positions]
        found = []
        for position, speed, address, data, waveform in zip(
            positions, speeds, addresses, read_audio_files(addresses), waveforms, strict=True
        ):
            error = None
            n_samples = max(1, round(self.segment_samples * speed))
            played = waveform if n_samples == self.segment_samples else np.empty(n_samples, np.float32)
            slack = max(0, address.n_samples - n_samples)
            start = int(np.random.default_rng([CROP, self._seed, position]).integers(slack + 1))
            try:
                decode(address, data, self.sample_rate, start, played)
                if played is not waveform:
                    change_speed(played, waveform)
            except AudioError as problem:
                waveform.fill(0.0)
                error = str(problem)
            found.append(Segment(address.key, waveform, error))
        return found


def decode(address: SampleAddress, data: bytes, sample_rate: int, start: int, out: np.ndarray) -> None:
    """Decode an audio file in memory from sample `start` on into `out`, float32 [n], with zeros after its end.

    Raises:
        AudioError: the file is damaged or differs from its index.
    """
    if len(data) < address.byte_range.size:
        raise AudioError(f"The sample {address.name} is cut off.", "decode_error")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as audio:
            if (audio.frames, audio.channels, audio.samplerate) != (address.n_samples, 1, sample_rate):
                raise AudioError(f"The sample {address.name} differs from its index.", "decode_error")
            audio.seek(start)
            n_read = len(audio.read(out=out))
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        raise AudioError(f"The sample {address.name} cannot be decoded: {reason}.", "decode_error") from None
    if n_read < min(len(out), address.n_samples - start):
        raise AudioError(f"The sample {address.name} is cut off.", "decode_error")
    out[n_read:] = 0.0
