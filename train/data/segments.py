"""Segments of training samples: decoding, and what is cut out of each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.utils.data import Dataset

from codectok.errors import AudioError

from .config import DataConfig
from .sources import SampleAddress, read_parts
from .stream import SampleStream

# Tells what is cut out of samples from all else that the seed decides.
CROP = 1


@dataclass(frozen=True)
class Segment:
    """What is heard at a position of the stream [n_samples]; of a damaged sample silence, and what is wrong with it."""

    key: str
    waveform: np.ndarray
    error: str | None = None


class SegmentDataset(Dataset[Tensor]):
    """Segments by their position in an endless stream.

    Which sample stands at a position, and which part of it is taken, depends on configuration, seed and position
    alone. So a run can go on from any position, with any number of loader workers and ranks.

    Attributes:
        stream: the samples.

    Raises:
        InputError: shards that cannot be used.
    """

    def __init__(self, config: DataConfig, sample_rate: int, segment_samples: int, seed: int) -> None:
        self.stream = SampleStream(config, sample_rate, seed)
        self.sample_rate = sample_rate
        self.segment_samples = segment_samples
        self._seed = seed

    def __len__(self) -> int:
        """Samples of an epoch, in the first stage."""
        return self.stream.stages[0].mixture.period

    def __getitem__(self, position: int) -> Tensor:
        """The segment [segment_samples] at `position`."""
        return torch.from_numpy(self.segments(range(position, position + 1))[0].waveform)

    def segments(self, positions: Sequence[int], out: np.ndarray | None = None) -> list[Segment]:
        """The segments at some positions, in the rows of `out` [n, segment_samples] where that is given.

        Raises:
            CodectokError: a shard is missing or cannot be reached.
        """
        waveforms = np.empty((len(positions), self.segment_samples), np.float32) if out is None else out
        addresses = [self.stream.address(position) for position in positions]
        found = []
        for position, address, data, waveform in zip(
            positions, addresses, read_parts(addresses), waveforms, strict=True
        ):
            error = None
            slack = max(0, address.n_samples - self.segment_samples)
            start = int(np.random.default_rng([CROP, self._seed, position]).integers(slack + 1))
            try:
                decode(address, data, self.sample_rate, start, waveform)
            except AudioError as problem:
                waveform.fill(0.0)
                error = str(problem)
            found.append(Segment(address.key, waveform, error))
        return found


def decode(address: SampleAddress, data: bytes, sample_rate: int, start: int, out: np.ndarray) -> None:
    """Fill `out` [n] with mono float32 samples from `start` on of an audio file in memory, and zeros after its end.

    Raises:
        AudioError: it is damaged, or not what its index says.
    """
    if len(data) < address.part.size:
        raise AudioError(f"The sample {address.name} is cut off.", "decode_error")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as audio:
            if (audio.frames, audio.channels, audio.samplerate) != (address.n_samples, 1, sample_rate):
                raise AudioError(f"The sample {address.name} is not what its index says.", "decode_error")
            audio.seek(start)
            n_read = len(audio.read(out=out))
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        raise AudioError(f"The sample {address.name} cannot be decoded: {reason}.", "decode_error") from None
    if n_read < min(len(out), address.n_samples - start):
        raise AudioError(f"The sample {address.name} is cut off.", "decode_error")
    out[n_read:] = 0.0
