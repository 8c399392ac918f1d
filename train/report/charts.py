"""Charts of the metrics that a run logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from codectok.evaluation.pages.line_charts import LineChart, Point, shown
from codectok.train.run.metrics_log import VALIDATION

Scalars = Mapping[str, Sequence[Point]]

# Sections, their charts, and the metrics of each; a name that ends with * stands for all that begin so.
SECTIONS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "Losses": {
        "Generator, weighted sum of all terms": ("generator",),
        "Mel error by window": ("mel_*",),
        "Adversarial loss and feature matching": ("adversarial", "feature_matching"),
        "Discriminators": ("discriminator",),
    },
    "Validation": {
        "Mel error": (f"{VALIDATION}mel",),
        "STOI": (f"{VALIDATION}stoi",),
        "PESQ": (f"{VALIDATION}pesq",),
    },
    "Use of the codes": {
        "Share of codes in use": ("codebook_usage", f"{VALIDATION}codebook_usage"),
        "Entropy in bits": ("codebook_entropy", f"{VALIDATION}codebook_entropy"),
        "Perplexity as a share of the codebook": ("codebook_perplexity_share",),
        "Share of codes replaced": ("codebook_expired_share",),
    },
    "Learning rate and speed": {
        "Learning rate": ("learning_rate",),
        "Steps per second": ("steps_per_second",),
        "Seconds of audio per second": ("audio_seconds_per_second",),
        "Samples that cannot be read": ("unreadable_samples",),
    },
}
OTHER = "Other metrics"
VALUE_HEADER = ("metric", "first", "least", "greatest", "last", "at step")


def charts_by_section(scalars: Scalars) -> Iterator[tuple[str, list[LineChart]]]:
    """Iterate over the sections of the page and their charts; metrics without a place become charts of the last one."""
    rest = {name: points for name, points in scalars.items() if points}
    sections: dict[str, list[LineChart]] = {}
    for section, charts in SECTIONS.items():
        sections[section] = []
        for title, wanted in charts.items():
            names = sorted(
                (name for name in rest if any(_matches(name, pattern) for pattern in wanted)), key=_by_number
            )
            if names:
                sections[section].append(LineChart(title, {_label(name, names): rest.pop(name) for name in names}))
    of_losses = [name for name in rest if not name.startswith(VALIDATION)]
    sections["Losses"] += [LineChart(name, {name: rest.pop(name)}) for name in sorted(of_losses)]
    sections[OTHER] = [LineChart(name, {name: points}) for name, points in sorted(rest.items())]
    yield from ((section, charts) for section, charts in sections.items() if charts)


def value_rows(scalars: Scalars) -> list[tuple[str, ...]]:
    """Return the rows of a table with the columns `VALUE_HEADER`."""
    rows: list[tuple[str, ...]] = []
    for name, points in sorted(scalars.items()):
        if points:
            values = [value for _, value in points]
            finite = [value for value in values if abs(value) < float("inf")]
            ends = (shown(min(finite)), shown(max(finite))) if finite else ("none", "none")
            rows.append((name, shown(values[0]), *ends, shown(values[-1]), f"{points[-1][0]:,.0f}"))
    return rows


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _by_number(name: str) -> tuple[str, int]:
    """Sort mel_512 before mel_1024, and training before validation."""
    stem, _, number = name.rpartition("_")
    if number.isdecimal():
        return stem, int(number)
    return name.removeprefix(VALIDATION), int(name.startswith(VALIDATION))


def _label(name: str, names: Sequence[str]) -> str:
    """Tell a metric in training from the same metric at validation."""
    in_training = name.removeprefix(VALIDATION)
    if len(names) == 2 and {in_training, VALIDATION + in_training} == set(names):
        return "at validation" if name.startswith(VALIDATION) else "in training"
    return name
