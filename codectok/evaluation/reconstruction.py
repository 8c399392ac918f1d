"""How good a codec is on a set of clips: measures of each reconstruction, and how the codebooks are used."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch

from codectok.audio.mel import LogMel
from codectok.codec import Codec
from codectok.config import StrictModel
from codectok.description import CodecDescription

from .codebook import CodebookUse, count_codes
from .metrics import log_mel_error, si_sdr, stft_distance
from .speech_quality import installed_measures


class ClipMeasures(StrictModel):
    """A clip of the test set, and the measures of its reconstruction; None where one has nothing to say of it."""

    id: str
    dataset: str
    source: str
    start: float
    seconds: float
    frames: int
    measures: dict[str, float | None]


class UnusedClip(StrictModel):
    """A clip, or a file, that could not be measured; `reason` is one of those that jobs have for rejects."""

    dataset: str
    source: str
    start: float
    reason: str
    message: str


class Mean(StrictModel):
    """The mean of a measure over the `clips` for which it says something; None where there is none."""

    mean: float | None
    clips: int


class EvaluationOptions(StrictModel):
    """What was measured: the `sources`, at most `limit` clips, and of each at most `max_seconds`."""

    sources: tuple[str, ...]
    limit: int | None = None
    max_seconds: float | None = None


class EvaluationReport(StrictModel):
    """Contents of the report of `codectok evaluate`.

    Attributes:
        codec: which one, and how it computed.
        frame_size: samples of a frame.
        bits_per_second: of all codes, each stored in as few bits as its codebook needs.
        entropy_bits_per_second: the same if codes were stored as their shares in this test set allow.
        options: what was measured.
        clips, seconds, frames: of the clips that were measured.
        means: over clips, by measure.
        not_installed: measures that are missing here, and the packages that they need.
        codebooks: use by the frames that belong to clips, in the order of a table's columns.
        unused: what could not be measured.
        ignored: files that are no audio.
    """

    format: Literal["codectok.evaluation"] = "codectok.evaluation"
    version: Literal[1] = 1
    codec: CodecDescription
    frame_size: int
    bits_per_second: float
    entropy_bits_per_second: float
    options: EvaluationOptions
    clips: int
    seconds: float
    frames: int
    means: dict[str, Mean]
    not_installed: dict[str, str]
    codebooks: tuple[CodebookUse, ...]
    unused: tuple[UnusedClip, ...]
    ignored: int


def measure(
    log_mel: LogMel, original: np.ndarray, reconstruction: np.ndarray, sample_rate: int
) -> dict[str, float | None]:
    """All installed measures of two aligned clips [n], by name; the longer one is cut."""
    length = min(len(original), len(reconstruction))
    pair = original[:length], reconstruction[:length]
    tensors = [torch.from_numpy(samples) for samples in pair]
    found: dict[str, float | None] = {
        "mel_l1": log_mel_error(log_mel, *tensors),
        "stft": stft_distance(*tensors),
        "si_sdr": si_sdr(*tensors),
    }
    return found | {name: measure_of(*pair, sample_rate) for name, measure_of in installed_measures().items()}


class Totals:
    """Adds up what clips give."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._counts = np.zeros((codec.n_codebooks, codec.codebook_size), np.int64)
        self._values: dict[str, list[float]] = defaultdict(list)
        self.clips = self.frames = 0
        self.seconds = 0.0

    def add(self, clip: ClipMeasures, codes: np.ndarray) -> None:
        """Take in a clip and its codes [n_frames, n_codebooks]."""
        self.clips += 1
        self.frames += len(codes)
        self.seconds += clip.seconds
        count_codes(self._counts, codes)
        for name, value in clip.measures.items():
            values = self._values[name]
            if value is not None:
                values.append(value)

    @property
    def means(self) -> dict[str, Mean]:
        """Of each measure."""
        return {
            name: Mean(mean=math.fsum(values) / len(values) if values else None, clips=len(values))
            for name, values in self._values.items()
        }

    @property
    def codebooks(self) -> tuple[CodebookUse, ...]:
        """The use of each."""
        return tuple(CodebookUse.of(counts) for counts in self._counts)


def report_of(
    codec: Codec,
    options: EvaluationOptions,
    totals: Totals,
    not_installed: Mapping[str, str],
    unused: tuple[UnusedClip, ...],
    ignored: int,
) -> EvaluationReport:
    """Everything that is known at the end."""
    codebooks = totals.codebooks
    return EvaluationReport(
        codec=codec.describe(),
        frame_size=codec.frame_size,
        bits_per_second=codec.frame_rate * codec.n_codebooks * math.log2(codec.codebook_size),
        entropy_bits_per_second=codec.frame_rate * sum(book.entropy for book in codebooks),
        options=options,
        clips=totals.clips,
        seconds=totals.seconds,
        frames=totals.frames,
        means=totals.means,
        not_installed=dict(not_installed),
        codebooks=codebooks,
        unused=unused,
        ignored=ignored,
    )
