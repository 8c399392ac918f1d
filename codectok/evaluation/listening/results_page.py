"""The page of results: means with intervals, and how each listener rated the hidden reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codectok.evaluation.pages.report import HtmlReport
from codectok.formatting import counted

from .intervals import MeanRating, mean_rating
from .rows import RatingRow
from .scales import BY_NAME, MUSHRA, SCALE_ORDER, SCALES
from .stored_test import REFERENCE, ListeningTest

# Post-screening of ITU-R BS.1534: listeners who rate the hidden reference below 90 on more than 15 % of the pages.
LOWEST_REFERENCE, LARGEST_SHARE = 90, 0.15


def mean_ratings(test: ListeningTest, rows: Iterable[RatingRow]) -> dict[tuple[str, str], MeanRating]:
    """Compute the mean of each scale and system over the ratings of complete pages."""
    values: dict[tuple[str, str], list[tuple[str, str, float]]] = {}
    for row in rows:
        if row.complete:
            values.setdefault((row.scale, row.system), []).append((row.listener, row.trial, row.value))
    return {
        (scale, system.name): mean_rating(values[scale, system.name], test.seed)
        for scale in SCALE_ORDER
        for system in test.systems
        if (scale, system.name) in values
    }


def reference_shares(rows: Iterable[RatingRow]) -> dict[str, tuple[int, int]]:
    """Count for each listener the hidden references rated below 90 in MUSHRA, and all of them, on complete pages."""
    counts: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row.complete and row.system == REFERENCE and row.scale == MUSHRA.name:
            low, total = counts.get(row.listener, (0, 0))
            counts[row.listener] = low + (row.value < LOWEST_REFERENCE), total + 1
    return counts


def screened_out(rows: Iterable[RatingRow]) -> frozenset[str]:
    """Return the listeners whom ITU-R BS.1534 excludes for their ratings of the hidden reference."""
    return frozenset(name for name, (low, total) in reference_shares(rows).items() if low > LARGEST_SHARE * total)


def results_page(test: ListeningTest, rows: Sequence[RatingRow]) -> str:
    """Return the page as HTML."""
    report = HtmlReport("Listening test")
    complete = [row for row in rows if row.complete]
    listeners = sorted({row.listener for row in rows})
    facts = [
        ("listeners", str(len(listeners))),
        ("ratings", f"{len(complete):,} on complete pages, {len(rows) - len(complete):,} on others"),
        ("test", f"{counted(len(test.clips), 'clip')}, {len(test.systems)} systems, scale {test.scale}"),
        ("levels", "as they were" if test.keep_levels else "stimuli have the loudness of their reference"),
    ]
    report.table("Test", ("", ""), facts)
    report.table("Systems", ("system", "kind", "source"), [(s.name, s.kind, s.source or "") for s in test.systems])
    _means_tables(report, test, complete, "")
    excluded = screened_out(complete)
    if excluded and excluded != set(listeners):
        kept = [row for row in complete if row.listener not in excluded]
        _means_tables(report, test, kept, f" without {counted(len(excluded), 'listener')} (see below)")
    _listeners_table(report, test, rows)
    return report.render()


def _means_tables(report: HtmlReport, test: ListeningTest, rows: Sequence[RatingRow], suffix: str) -> None:
    means = mean_ratings(test, rows)
    for name, scale in BY_NAME.items():
        found = [(system.name, means[name, system.name]) for system in test.systems if (name, system.name) in means]
        if not found:
            continue
        title = f"{scale.title}, {scale.lowest} to {scale.highest}{suffix}"
        lines = [
            (system, mean.low, mean.mean, mean.high)
            for system, mean in found
            if mean.low is not None and mean.high is not None
        ]
        if lines:
            ticks = range(scale.lowest, scale.highest + 1, 20 if scale is MUSHRA else 1)
            report.intervals(f"{title}: means and 95 % intervals", ticks, lines)
        report.table(
            title,
            ("system", "mean", "95 % interval", "ratings"),
            [(system, f"{mean.mean:.2f}", interval_text(mean), f"{mean.ratings:,}") for system, mean in found],
        )


def interval_text(mean: MeanRating) -> str:
    """Format the interval of a mean."""
    return "none" if mean.low is None or mean.high is None else f"{mean.low:.2f} to {mean.high:.2f}"


def _listeners_table(report: HtmlReport, test: ListeningTest, rows: Sequence[RatingRow]) -> None:
    """Add how each listener rated the hidden reference."""
    shares, excluded = reference_shares(rows), screened_out(rows)
    scales = [scale for kind in test.kinds for scale in SCALES[kind]]
    table = []
    for listener in sorted({row.listener for row in rows}):
        own = [row for row in rows if row.listener == listener and row.complete]
        cells = [listener, f"{len({row.trial for row in own})} of {len(test.pages)}"]
        for scale in scales:
            values = [row.value for row in own if row.scale == scale.name and row.system == REFERENCE]
            cells.append(f"{sum(values) / len(values):.2f}" if values else "none")
        if "mushra" in test.kinds:
            low, total = shares.get(listener, (0, 0))
            cells.append(f"{low / total:.0%} ({low} of {total})" if total else "none")
            cells.append("excluded" if listener in excluded else "kept" if total else "none")
        table.append(cells)
    header = ["listener", "pages", *(f"mean {scale.title.lower()}" for scale in scales)]
    if "mushra" in test.kinds:
        header += [f"rated below {LOWEST_REFERENCE}", "by BS.1534"]
    report.table("Hidden reference by listener", header, table)
