"""Reconstruction quality of a codec on a test set: metrics per clip, their means, and codebook usage."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from codectok.audio.analysis.mel import LogMel
from codectok.choices import CancelledChoice, ScaleChoice
from codectok.codecs.base import AudioCodec
from codectok.config import StrictModel
from codectok.description import CodecDescription
from codectok.sources.unused import UnusedCounts, sum_unused

from .codebook import CodebookUse, count_codes
from .metrics.signal import log_mel_error, si_sdr, stft_distance
from .metrics.speech_quality import installed_measures


class ClipMeasures(StrictModel):
    """A clip of the test set, and the metrics of its reconstruction; None if a metric is undefined for it."""

    id: str
    dataset: str
    source: str
    start: float
    seconds: float
    frames: int
    measures: dict[str, float | None]


class UnusedClip(StrictModel):
    """A clip or file that could not be measured; `reason` is one of the reasons for rejects."""

    dataset: str
    source: str
    start: float
    reason: str
    message: str


class Mean(StrictModel):
    """Mean of a metric over the `clips` for which it is defined; None if there are none."""

    mean: float | None
    clips: int


class EvaluationOptions(StrictModel):
    """Options of an evaluation: `sources`, at most `limit` clips, at most `max_seconds` of each, files of at
    most `max_file_bytes`, and `SoundOptions`."""

    sources: tuple[str, ...]
    limit: int | None = None
    max_seconds: float | None = None
    channel: int | str = "mix"
    cancelled: CancelledChoice = "first"
    scale: ScaleChoice = "refuse"
    max_file_seconds: float | None = None
    max_file_bytes: int | None = None


class EvaluationReport(StrictModel):
    """Contents of the report of `codectok evaluate`.

    Attributes:
        codec: the codec and its settings.
        frame_size: samples per frame.
        bits_per_second: bit rate with log2(codebook_size) bits per code.
        entropy_bits_per_second: bit rate with ideal entropy coding of each codebook on this test set.
        options: options of the evaluation.
        clips, seconds, frames: totals of the measured clips.
        means: over clips, by metric.
        not_installed: metrics that are not installed, and the packages that they need.
        codebooks: usage by the measured frames, in the order of a table's columns.
        unused: clips and files that could not be measured.
        ignored: number of files that are not audio.
        parts: parts of the inputs that are not used, by kind and name.
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
    parts: UnusedCounts = Field(default_factory=dict)


def measure(
    log_mel: LogMel, original: np.ndarray, reconstruction: np.ndarray, sample_rate: int
) -> dict[str, float | None]:
    """Compute all installed metrics of two aligned clips [n], by name; the longer clip is cut."""
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
    """Accumulates metrics and codes over clips."""

    def __init__(self, codec: AudioCodec) -> None:
        self._codec = codec
        self._counts = np.zeros((codec.n_codebooks, codec.codebook_size), np.int64)
        self._values: dict[str, list[float]] = defaultdict(list)
        self.clips = self.frames = 0
        self.seconds = 0.0

    def add(self, clip: ClipMeasures, codes: np.ndarray) -> None:
        """Add a clip and its codes [n_frames, n_codebooks]."""
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
        """Mean of each metric."""
        return {
            name: Mean(mean=math.fsum(values) / len(values) if values else None, clips=len(values))
            for name, values in self._values.items()
        }

    @property
    def codebooks(self) -> tuple[CodebookUse, ...]:
        """Usage statistics of each codebook."""
        return tuple(CodebookUse.of(counts) for counts in self._counts)


def report_of(
    codec: AudioCodec,
    options: EvaluationOptions,
    totals: Totals,
    not_installed: Mapping[str, str],
    unused: tuple[UnusedClip, ...],
    ignored: int,
    parts: UnusedCounts,
) -> EvaluationReport:
    """Build the report of an evaluation."""
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
        parts=sum_unused([parts]),
    )
