"""Summary of an evaluation: means with confidence intervals, differences between codecs, and use of codes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from codectok.config import StrictModel
from codectok.description import CodecDescription
from codectok.evaluation.codes.codebook import CodebookUse, count_codes
from codectok.evaluation.codes.ngram import ngram_bits
from codectok.evaluation.metrics.base import Quantity

from .bootstrap import Intervals, intervals
from .discrimination import Discrimination, discrimination

ALL = "all"
DIGITS = 9
# The ceiling, and the controls that every metric should rate lower.
CEILING, BELOW_CEILING = "original", ("opus_6k", "codec2_1200", "noise", "silence")


class Estimate(StrictModel):
    """Mean over clips with its 95 % confidence interval; None if undefined. `clips` have a value."""

    mean: float | None
    low: float | None
    high: float | None
    clips: int


class Difference(StrictModel):
    """Mean difference of two codecs over the clips for which both have a value: the first minus the second.

    Attributes:
        first, second: names of the codecs.
        estimate: the difference.
        better: name of the codec that is better with 95 % confidence; None if neither is, or the metric has no
            direction.
    """

    first: str
    second: str
    estimate: Estimate
    better: str | None


class CodebookFacts(StrictModel):
    """Codes of a codebook that occur, their share of the codebook, entropy in bits, and perplexity."""

    used: int
    used_share: float
    entropy: float
    perplexity: float


class CodeFacts(StrictModel):
    """Codes of a codec.

    Attributes:
        tokens: number of codes.
        codebooks: use of each codebook.
        bits_per_second: bit rate with log2(codebook_size) bits a code.
        entropy_bits_per_second: bit rate with ideal entropy coding of each codebook on these clips.
        ngram_bits: bits a token of a language model of n-grams, see `codectok.evaluation.codes.ngram`; None with
            too few tokens.
        ngram_bits_per_second: the same in bits a second of audio.
    """

    tokens: int
    codebooks: tuple[CodebookFacts, ...]
    bits_per_second: float
    entropy_bits_per_second: float
    ngram_bits: float | None
    ngram_bits_per_second: float | None


class CategorySummary(StrictModel):
    """Results of the clips of one category, or of all.

    Attributes:
        clips, recordings, seconds: amount of audio.
        systems: means by codec or control, and by metric.
        differences: between codecs, by metric.
        codes: by codec.
    """

    clips: int
    recordings: int
    seconds: float
    systems: dict[str, dict[str, Estimate]]
    differences: dict[str, tuple[Difference, ...]]
    codes: dict[str, CodeFacts]


class MetricFacts(StrictModel):
    """A metric: direction, description, the controls from which it cannot tell the original on this data, and the
    controls where this cannot be said, since it is defined for fewer than two recordings."""

    better: Literal["higher", "lower", "neither"]
    description: str
    not_told_apart: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()


class EvaluationSummary(StrictModel):
    """Contents of `summary.json`.

    Attributes:
        codecs: the codecs and their settings, by name.
        controls: names of the controls.
        sample_rate: at which reconstructions are compared, in Hz.
        preset: protocol that the test set follows; None for none.
        metrics: the metrics, by name.
        delays: median delay of each codec and control in samples, positive for late ones; None if not measured.
        categories: results by category; "all" holds those of all clips.
        cut: number of clips that are longer than what was measured.
        not_installed: metrics and controls that were left out, with what they need.
    """

    format: Literal["codectok.evaluation"] = "codectok.evaluation"
    version: Literal[2] = 2
    codecs: dict[str, CodecDescription]
    controls: tuple[str, ...]
    sample_rate: int
    preset: str | None
    metrics: dict[str, MetricFacts]
    delays: dict[str, float | None]
    categories: dict[str, CategorySummary]
    cut: int
    not_installed: dict[str, str]


@dataclass(frozen=True)
class Measurements:
    """Measurements of all clips.

    Attributes:
        systems: names of codecs and controls.
        quantities: names of the metrics.
        values: float64 [n_clips, n_systems, n_quantities]; NaN where undefined.
        delays: float64 [n_clips, n_systems] in samples; NaN where unknown.
        recordings: number of the recording of each clip [n_clips].
        categories: name of the category of each clip [n_clips].
        seconds: duration of each clip [n_clips].
        folds: 0 or 1 for each recording's clips [n_clips], for cross-validation.
    """

    systems: Sequence[str]
    quantities: Sequence[Quantity]
    values: np.ndarray
    delays: np.ndarray
    recordings: np.ndarray
    categories: np.ndarray
    seconds: np.ndarray
    folds: np.ndarray


Codes = Mapping[str, Sequence["np.ndarray | None"]]
"""By codec, the codes int [n_frames, n_codebooks] of each clip; None for clips that it refuses."""


def median_delays(found: Measurements) -> dict[str, float | None]:
    """Median delay of each codec and control in samples."""
    known = {system: found.delays[:, number] for number, system in enumerate(found.systems)}
    known = {system: delays[np.isfinite(delays)] for system, delays in known.items()}
    return {system: float(np.median(delays)) if len(delays) else None for system, delays in known.items()}


def summarize(
    found: Measurements, codes: Codes, codecs: Mapping[str, CodecDescription]
) -> tuple[dict[str, CategorySummary], dict[str, MetricFacts]]:
    """Summarize all clips and each category, and say which metrics tell the original from the controls."""
    chosen = {ALL: np.ones(len(found.seconds), bool)}
    # A category of this very name is not shown by itself.
    chosen |= {name: found.categories == name for name in sorted({*found.categories.tolist()} - {ALL})}
    categories = {name: _category(found, codes, codecs, mask) for name, mask in chosen.items()}
    doubts = _compared_with_controls(found)
    facts = {
        quantity.name: MetricFacts(
            better=quantity.better,
            description=quantity.description,
            not_told_apart=doubts[quantity.name].not_told_apart if quantity.name in doubts else (),
            not_compared=doubts[quantity.name].undefined if quantity.name in doubts else (),
        )
        for quantity in found.quantities
    }
    return categories, facts


def _category(
    found: Measurements, codes: Codes, codecs: Mapping[str, CodecDescription], mask: np.ndarray
) -> CategorySummary:
    values, recordings = found.values[mask], found.recordings[mask]
    n_clips, n_systems, n_quantities = values.shape
    pairs = list(itertools.combinations([found.systems.index(label) for label in codecs], 2))
    differences = [values[:, one] - values[:, other] for one, other in pairs]
    columns = np.concatenate([values.reshape(n_clips, -1), *differences], axis=1)
    estimates = _estimates(intervals(columns, recordings))
    rows = [estimates[start : start + n_quantities] for start in range(0, len(estimates), n_quantities)]
    names = [quantity.name for quantity in found.quantities]
    numbers = np.flatnonzero(mask).tolist()
    return CategorySummary(
        clips=n_clips,
        recordings=len(np.unique(recordings)),
        seconds=float(found.seconds[mask].sum()),
        systems={
            system: {name: row for name, row in zip(names, rows[number], strict=True) if row.clips}
            for number, system in enumerate(found.systems)
        },
        differences={
            quantity.name: tuple(
                _difference(found.systems[one], found.systems[other], row[position], quantity)
                for (one, other), row in zip(pairs, rows[n_systems:], strict=True)
                if row[position].clips
            )
            for position, quantity in enumerate(found.quantities)
            if pairs
        },
        codes={
            label: _code_facts([codes[label][number] for number in numbers], found.folds[mask], description)
            for label, description in codecs.items()
        },
    )


def _estimates(found: Intervals) -> list[Estimate]:
    columns = (found.mean, found.low, found.high)
    return [
        Estimate(mean=_finite(mean), low=_finite(low), high=_finite(high), clips=int(count))
        for mean, low, high, count in zip(*columns, found.count, strict=True)
    ]


def _finite(value: float) -> float | None:
    # The last bits depend on the library that sums.
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _difference(first: str, second: str, estimate: Estimate, quantity: Quantity) -> Difference:
    sign = _sign_of(estimate)
    higher = first if sign > 0 else second
    lower = second if sign > 0 else first
    better = {"higher": higher, "lower": lower, "neither": None}[quantity.better] if sign else None
    return Difference(first=first, second=second, estimate=estimate, better=better)


def _sign_of(estimate: Estimate) -> int:
    """1 or -1 if the whole interval is above or below zero, else 0."""
    if estimate.low is None or estimate.high is None:
        return 0
    return int(estimate.low > 0) - int(estimate.high < 0)


def _compared_with_controls(found: Measurements) -> dict[str, Discrimination]:
    """Compare the original with the controls that every metric should rate lower, by metric."""
    if CEILING not in found.systems:
        return {}
    values = {system: found.values[:, number] for number, system in enumerate(found.systems)}
    below = {name: values[name] for name in BELOW_CEILING if name in values}
    return discrimination(found.quantities, values[CEILING], below, found.recordings)


def _code_facts(clips: Sequence[np.ndarray | None], folds: np.ndarray, description: CodecDescription) -> CodeFacts:
    known = [(codes, fold) for codes, fold in zip(clips, folds, strict=True) if codes is not None]
    counts = np.zeros((description.n_codebooks, description.codebook_size), np.int64)
    for codes, _ in known:
        count_codes(counts, codes)
    uses = [CodebookUse.of(row) for row in counts]
    rate = description.frame_rate
    bits = ngram_bits(
        [codes for codes, _ in known],
        description.n_codebooks * description.codebook_size,
        np.array([fold for _, fold in known], np.int64),
    )
    return CodeFacts(
        tokens=int(counts.sum()),
        codebooks=tuple(
            CodebookFacts(used=use.used, used_share=use.used_share, entropy=use.entropy, perplexity=use.perplexity)
            for use in uses
        ),
        bits_per_second=rate * description.n_codebooks * math.log2(description.codebook_size),
        entropy_bits_per_second=rate * sum(use.entropy for use in uses),
        ngram_bits=bits,
        ngram_bits_per_second=None if bits is None else bits * rate * description.n_codebooks,
    )
