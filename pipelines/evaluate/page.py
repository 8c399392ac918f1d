"""The page of an evaluation: tables with intervals, charts of all clips, and clips to listen to."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import soundfile

from codectok.evaluation.metrics.base import Quantity
from codectok.evaluation.pages.line_charts import shown
from codectok.evaluation.pages.players import Comparison, Player
from codectok.evaluation.pages.report import HtmlReport
from codectok.evaluation.pages.spectrogram import spectrograms
from codectok.evaluation.published import PUBLISHED_HEADER, published_rows
from codectok.evaluation.summary import ALL, CategorySummary, Estimate, EvaluationSummary
from codectok.formatting import counted, format_duration
from codectok.storage import Storage

from .examples import Example, badness, choose_examples
from .files import ORIGINAL, PAGE_FILE
from .setting import Setting, tables_of_units

BINS = 30
INTERVAL = "mean (95 % confidence interval)"


def write_page(storage: Storage, summary: EvaluationSummary, setting: Setting, worst_by: Quantity | None) -> None:
    """Write `report.html`; its bytes depend on the rows only."""
    page = HtmlReport("codectok evaluate")
    _overview(page, summary)
    for name, category in summary.categories.items():
        if name != ALL or len(summary.categories) != 2:
            page.table(f"{_title(name)}: {INTERVAL}", ("metric", "better", *setting.systems), _means(summary, category))
    _doubts(page, summary)
    page.table("Codes", CODE_COLUMNS, _codes(summary))
    if len(summary.codecs) > 1:
        for name, category in summary.categories.items():
            page.table(
                f"{_title(name)}: differences of codecs on the same clips",
                ("metric", "difference", INTERVAL, "better"),
                _differences(category),
            )
    _examples(page, storage, setting, worst_by)
    _histograms(page, storage, setting)
    page.table(
        "Metrics", ("metric", "description"), [(name, facts.description) for name, facts in summary.metrics.items()]
    )
    page.table("Published figures", PUBLISHED_HEADER, published_rows())
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
        rows.append(("cut", f"{counted(summary.cut, 'clip')} longer than what was measured"))
    rows += [(f"without {name}", f"needs {needed}") for name, needed in summary.not_installed.items()]
    page.table("In all", ("", ""), rows)


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
                "" if unknown else f"{codes.ngram_bits_per_second:,.0f}",
                "" if unknown else f"{codes.ngram_bits:.2f}",
            )


def _differences(category: CategorySummary) -> Iterator[tuple[str, ...]]:
    for name, differences in category.differences.items():
        for found in differences:
            pair = f"{found.first} - {found.second}"
            yield name, pair, with_interval(found.estimate), found.better or "neither"


def _histograms(page: HtmlReport, storage: Storage, setting: Setting) -> None:
    """Chart the values of each metric, one chart for each codec."""
    names = [quantity.name for quantity in setting.quantities]
    values: dict[str, list[np.ndarray]] = {label: [] for label in setting.codecs}
    for _, table in tables_of_units(storage):
        columns = [table[name].fill_null(float("nan")).to_numpy() for name in names]
        rows = np.stack(columns, axis=1).reshape(-1, len(setting.systems), len(names))
        for number, label in enumerate(setting.codecs):
            values[label].append(rows[:, number])
    for position, name in enumerate(names):
        for label in setting.codecs:
            found = np.concatenate(values[label])[:, position]
            found = found[np.isfinite(found)]
            if len(found) > 1:
                step = _nice_step(float(np.ptp(found)) / BINS)
                bins, counts = np.unique(np.floor(found / step).astype(np.int64), return_counts=True)
                page.histogram(f"{name} of {label}", dict(zip(bins.tolist(), counts.tolist(), strict=True)), step)


def _nice_step(width: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(max(width, 1e-6)))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width))


def _examples(page: HtmlReport, storage: Storage, setting: Setting, worst_by: Quantity | None) -> None:
    for chosen in choose_examples(storage):
        if worst_by is not None and chosen.worst:
            title = f"The worst clips of {chosen.category} by {worst_by.name} of {setting.systems[0]}"
            page.comparisons(title, [_comparison(example, worst_by) for example in chosen.worst])
        page.comparisons(
            f"Clips of {chosen.category} chosen by lot", [_comparison(example, worst_by) for example in chosen.by_lot]
        )


def _comparison(example: Example, worst_by: Quantity | None) -> Comparison:
    """The original and its reconstructions, with pictures of one scale."""
    names = [ORIGINAL, *(name for name in example.audio if name != ORIGINAL)]
    decoded = [soundfile.read(io.BytesIO(example.audio[name]), dtype="float32") for name in names]
    pictures = spectrograms([samples for samples, _ in decoded], decoded[0][1])
    value = None if worst_by is None else badness(example.badness, worst_by)
    shown = "" if worst_by is None or value is None else f", {worst_by.name} {value:.3f}"
    players = [
        Player(name, example.audio[name], "audio/flac", picture) for name, picture in zip(names, pictures, strict=True)
    ]
    return Comparison(f"{example.id}{shown}", players)
