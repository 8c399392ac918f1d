"""The page of an evaluation: tables with intervals, charts of all clips, and clips to listen to."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import numpy as np
import soundfile

from codectok.evaluation.metrics.base import Quantity
from codectok.evaluation.pages.line_charts import shown
from codectok.evaluation.pages.players import Comparison, Player
from codectok.evaluation.pages.report import HtmlReport
from codectok.evaluation.pages.spectrogram import spectrograms
from codectok.evaluation.published import PUBLISHED_HEADER, published_rows
from codectok.evaluation.summary import ALL, CategorySummary, Estimate, EvaluationSummary, Measurements
from codectok.formatting import counted, format_duration
from codectok.storage import Storage

from .examples import Example, badness, choose_examples
from .files import ORIGINAL, PAGE_FILE

BINS = 30
MOST_CATEGORIES = 10
INTERVAL = "mean (95 % confidence interval)"


def write_page(storage: Storage, summary: EvaluationSummary, found: Measurements, worst_by: Quantity | None) -> None:
    """Write `report.html`; its bytes depend on the rows only."""
    page = HtmlReport("codectok evaluate")
    _overview(page, summary)
    for name, category in summary.categories.items():
        if name != ALL or len(summary.categories) != 2:
            page.table(f"{_title(name)}: {INTERVAL}", ("metric", "better", *found.systems), _means(summary, category))
    _doubts(page, summary)
    page.table("Codes", CODE_COLUMNS, _codes(summary))
    if len(summary.codecs) > 1:
        for name, category in summary.categories.items():
            page.table(
                f"{_title(name)}: differences of codecs on the same clips",
                ("metric", "difference", INTERVAL, "better"),
                _differences(category),
            )
    _examples(page, storage, summary, worst_by)
    with page.folded("Charts of all metrics and codecs"):
        _histograms(page, summary, found)
    page.table(
        "Metrics", ("metric", "description"), [(name, facts.description) for name, facts in summary.metrics.items()]
    )
    own = _own_rows(summary)
    page.table("Published figures, and those of these codecs", PUBLISHED_HEADER, [*own, *published_rows()])
    storage.write(PAGE_FILE, page.render().encode())


def _title(category: str) -> str:
    return "All clips" if category == ALL else f"Category {category}"


def _overview(page: HtmlReport, summary: EvaluationSummary) -> None:
    everything = summary.categories[ALL]
    rows = [
        (label, f"{codec.codec_name}, {codec.codec_fingerprint[:12]}; {codec.made_with}")
        for label, codec in summary.codecs.items()
    ]
    rows += [
        (
            "test set",
            f"{counted(everything.clips, 'clip')} of {counted(everything.recordings, 'recording')},"
            f" {format_duration(everything.seconds)}",
        ),
        ("compared at", f"{summary.sample_rate:,} Hz"),
        *(
            (f"delay of {system}", "unknown" if delay is None else f"{delay:g} samples (median), removed")
            for system, delay in summary.delays.items()
            if delay != 0
        ),
    ]
    if summary.cut:
        rows.append(("cut", f"only the beginning of {counted(summary.cut, 'longer clip')} was measured"))
    if everything.recordings < 2:
        rows.append(("intervals", "none: they need two recordings or more"))
    rows += [(f"without {name}", f"needs {needed}") for name, needed in summary.not_installed.items()]
    page.table("Overview", ("", ""), rows)


def _means(summary: EvaluationSummary, category: CategorySummary) -> Iterator[tuple[str, ...]]:
    for name, facts in summary.metrics.items():
        cells = [with_interval(found.get(name)) for found in category.systems.values()]
        if any(cells):
            yield name, facts.better, *cells


def with_interval(estimate: Estimate | None) -> str:
    """A mean with its interval; "" if it is undefined."""
    if estimate is None or estimate.mean is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return shown(estimate.mean)
    return f"{shown(estimate.mean)} ({shown(estimate.low)} to {shown(estimate.high)})"


def _doubts(page: HtmlReport, summary: EvaluationSummary) -> None:
    doubts = [
        (name, ", ".join(facts.not_told_apart)) for name, facts in summary.metrics.items() if facts.not_told_apart
    ]
    if doubts:
        page.table(
            "Metrics that cannot be trusted on this data", ("metric", "does not rate the original above"), doubts
        )


CODE_COLUMNS = ("codec", "category", "tokens", "used", "perplexity", "bits/s", "by entropy", "by n-grams", "bits/token")


def _codes(summary: EvaluationSummary) -> Iterator[tuple[str, ...]]:
    for label in summary.codecs:
        for name, category in summary.categories.items():
            codes = category.codes[label]
            unknown = codes.ngram_bits is None or codes.ngram_bits_per_second is None
            yield (
                label,
                name,
                f"{codes.tokens:,}",
                ", ".join(f"{book.used_share:.1%}" for book in codes.codebooks),
                ", ".join(f"{book.perplexity:,.0f}" for book in codes.codebooks),
                f"{codes.bits_per_second:,.0f}",
                f"{codes.entropy_bits_per_second:,.0f}",
                "too few" if unknown else f"{codes.ngram_bits_per_second:,.0f}",
                "" if unknown else f"{codes.ngram_bits:.2f}",
            )


def _differences(category: CategorySummary) -> Iterator[tuple[str, ...]]:
    for name, differences in category.differences.items():
        for found in differences:
            pair = f"{found.first} - {found.second}"
            yield name, pair, with_interval(found.estimate), found.better or "neither"


def _histograms(page: HtmlReport, summary: EvaluationSummary, found: Measurements) -> None:
    """Chart the values of each metric, one chart for each codec."""
    for position, quantity in enumerate(found.quantities):
        for label in summary.codecs:
            values = found.values[:, found.systems.index(label), position]
            values = values[np.isfinite(values)]
            if len(values) > 1:
                step = _nice_step(float(np.ptp(values)) / BINS)
                bins, counts = np.unique(np.floor(values / step).astype(np.int64), return_counts=True)
                page.histogram(
                    f"{quantity.name} of {label}", dict(zip(bins.tolist(), counts.tolist(), strict=True)), step
                )


def _nice_step(width: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(max(width, 1e-6)))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width))


def _own_rows(summary: EvaluationSummary) -> list[tuple[str, ...]]:
    """Rows of the codecs, with the columns of the published figures."""
    everything = summary.categories[ALL]

    def mean(label: str, name: str) -> str:
        found = everything.systems[label].get(name)
        return "" if found is None or found.mean is None else f"{found.mean:.2f}"

    return [
        (
            label,
            f"{codes.bits_per_second:,.0f}",
            *(mean(label, name) for name in ("stoi", "pesq", "utmos")),
            ", ".join(f"{book.used_share:.1%}" for book in codes.codebooks),
            ", ".join(f"{book.perplexity:,.0f}" for book in codes.codebooks),
            summary.preset or "this test set",
            "measured here",
        )
        for label, codes in everything.codes.items()
    ]


def _examples(page: HtmlReport, storage: Storage, summary: EvaluationSummary, worst_by: Quantity | None) -> None:
    """Add players for the categories with the most clips."""
    by_size = sorted(summary.categories.keys() - {ALL}, key=lambda name: (-summary.categories[name].clips, name))
    with_players = [ALL, *by_size[:MOST_CATEGORIES]]  # clips of a category of the name of ALL have no entry
    for chosen in choose_examples(storage, with_players):
        if worst_by is not None and chosen.worst:
            title = f"The worst clips of {chosen.category}, by {worst_by.name} of the worst codec"
            page.comparisons(title, [_comparison(example, worst_by) for example in chosen.worst])
        page.comparisons(
            f"Random clips of {chosen.category}", [_comparison(example, worst_by) for example in chosen.by_lot]
        )
    if without := by_size[MOST_CATEGORIES:]:
        page.paragraph(f"Categories without players, since they have the fewest clips: {', '.join(without)}.")


def _comparison(example: Example, worst_by: Quantity | None) -> Comparison:
    """The original and its reconstructions, with pictures of one scale."""
    names = [ORIGINAL, *(name for name in example.audio if name != ORIGINAL)]
    decoded = [soundfile.read(io.BytesIO(example.audio[name]), dtype="float32") for name in names]
    pictures = spectrograms([samples for samples, _ in decoded], decoded[0][1])
    value = None if worst_by is None else badness(example.badness, worst_by)
    measured = ""
    if worst_by is not None and value is not None and math.isfinite(value):
        measured = f", {worst_by.name} {value:.3f}"
    players = [
        Player(name, example.audio[name], "audio/flac", picture) for name, picture in zip(names, pictures, strict=True)
    ]
    return Comparison(f"{example.id}{measured}", players)
