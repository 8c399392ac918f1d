"""Measures one clip: reconstructs it with all codecs and controls, and compares each with the original."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codectok.audio.resample import resample
from codectok.description import CodecDescription
from codectok.errors import AudioError
from codectok.evaluation.codes.stability import QUANTITIES as STABILITY
from codectok.evaluation.controls.controls import Control
from codectok.evaluation.metrics.alignment import align
from codectok.evaluation.metrics.base import Metric, Signal
from codectok.evaluation.metrics.registry import measure_pair
from codectok.phases import ENCODING, PhaseClock

from .clips import EvaluatedClip, seed_of
from .files import CODES_COLUMN, DELAY_COLUMN, REASONS_COLUMN
from .reconstruction import Reconstruct

MEASURING = "measuring"


@dataclass(frozen=True)
class CodecFacts:
    """A codec of an evaluation.

    Attributes:
        label: name in the results.
        description: the codec, on the device of the workers.
        decoded_rate: sample rate of its reconstructions in Hz.
    """

    label: str
    description: CodecDescription
    decoded_rate: int


@dataclass(frozen=True)
class MeasuredClip:
    """Rows of a clip, one for each codec and control, and their audio by name, float32 [n]."""

    rows: Sequence[Mapping[str, Any]]
    audio: Mapping[str, np.ndarray]


class ClipMeasurer:
    """Measures clips.

    Args:
        codecs: in the order in which `reconstruct` numbers them.
        reconstruct: encodes and decodes clips.
        controls: to measure beside the codecs.
        metrics: to compute.
        sample_rate: at which reconstructions are compared.
        with_stability: rows have shares of equal codes.
    """

    def __init__(
        self,
        codecs: Sequence[CodecFacts],
        reconstruct: Reconstruct,
        controls: Sequence[Control],
        metrics: Sequence[Metric],
        sample_rate: int,
        with_stability: bool,
    ) -> None:
        self._codecs, self._reconstruct, self._controls = codecs, reconstruct, controls
        self._metrics, self._rate = metrics, sample_rate
        self._names = [quantity.name for metric in metrics for quantity in metric.quantities]
        self._stability = [quantity.name for quantity in STABILITY] if with_stability else []

    def measure(self, clip: EvaluatedClip, clock: PhaseClock) -> MeasuredClip:
        """Measure a clip."""
        original = Signal(clip.samples[self._rate], self._rate, clip.source_rate)
        rows, audio = [], {}
        for number, codec in enumerate(self._codecs):
            with clock.during(ENCODING):
                samples = clip.samples[codec.description.sample_rate]
                made = self._reconstruct(number, samples, seed_of(clip.clip))
            if isinstance(made, str):
                rows.append(self._row(clip, codec.label, original, made, self._stability))
                continue
            audio[codec.label] = self._fitted(made.samples, codec, len(original.samples))
            with clock.during(MEASURING):
                row = self._row(clip, codec.label, original, audio[codec.label])
            row["n_frames"], row[CODES_COLUMN] = len(made.codes), made.codes.reshape(-1)
            row |= made.stability
            undefined = [name for name, share in made.stability.items() if share is None]
            row[REASONS_COLUMN] |= dict.fromkeys(undefined, "the clip is too short or silent for this change")
            rows.append(row)
        for control in self._controls:
            with clock.during(MEASURING):
                rows.append(self._row(clip, control.name, original, self._controlled(control, clip, original)))
        return MeasuredClip(rows, audio)

    def _fitted(self, samples: np.ndarray, codec: CodecFacts, length: int) -> np.ndarray:
        """Convert a reconstruction to the common rate and to the length of the clip.

        Up to a frame may be missing at its end; more than that sounds as silence, and is measured as such.
        """
        converted = resample(samples, codec.decoded_rate, self._rate)[:length]
        frame = math.ceil(self._rate / codec.description.frame_rate)
        missing = length - len(converted)
        return converted if missing <= frame else np.pad(converted, (0, missing))

    def _controlled(self, control: Control, clip: EvaluatedClip, original: Signal) -> np.ndarray | str:
        try:
            return control.reconstruct(original.samples, self._rate, seed_of(clip.clip))
        except AudioError as error:
            return str(error)

    def _row(
        self,
        clip: EvaluatedClip,
        system: str,
        original: Signal,
        made: np.ndarray | str,
        more: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Row of one codec or control.

        `made` is its reconstruction, or the reason why there is none; then the quantities `more` are undefined, too.
        """
        span = clip.clip.span
        row: dict[str, Any] = {
            "id": clip.clip.id,
            "dataset": clip.clip.dataset,
            "source": clip.clip.source,
            "start": clip.clip.start,
            "seconds": original.seconds,
            "category": clip.category,
            "language": span.labels.language,
            "text": span.text,
            "system": system,
            "n_frames": None,
            DELAY_COLUMN: None,
            CODES_COLUMN: None,
        }
        if isinstance(made, str):
            undefined = [*self._names, *more]
            return row | dict.fromkeys(undefined) | {REASONS_COLUMN: dict.fromkeys(undefined, made)}
        # The same object, so that values of the original are computed once.
        other = original if np.array_equal(made, original.samples) else Signal(made, self._rate)
        aligned = align(original, other, span.text, span.labels.language)
        values, reasons = measure_pair(self._metrics, aligned.pair)
        return row | values | {DELAY_COLUMN: aligned.delay, REASONS_COLUMN: dict(sorted(reasons.items()))}
