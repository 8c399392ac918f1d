"""Examples to listen to: the worst clips of each category by one metric, and clips chosen by lot."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codectok.audio.files import encode_audio
from codectok.errors import damage_errors
from codectok.evaluation.metrics.base import Quantity
from codectok.pipelines.engine.output.unit_files import EXAMPLES
from codectok.storage import Storage

from .clips import EvaluatedClip, fraction_of
from .files import EXAMPLES_SCHEMA

WORST, BY_LOT = 10, 10
MOST_SECONDS = 15.0


@dataclass(frozen=True)
class Example:
    """A clip to listen to.

    Attributes:
        id, category: of the clip.
        badness: its metric, larger for worse clips; None if undefined.
        lot: number from 0 to 1 by which clips are drawn.
        audio: FLAC by name of the original and the codecs.
    """

    id: str
    category: str
    badness: float | None
    lot: float
    audio: Mapping[str, bytes]

    @property
    def _worst_first(self) -> tuple[float, str]:
        return -math.inf if self.badness is None else -self.badness, self.id


def badness(value: float | None, quantity: Quantity) -> float | None:
    """Turn a metric into a number that is larger for worse clips, or back; None if it is undefined."""
    return None if value is None else -value if quantity.better == "higher" else value


class ExampleChooser:
    """Holds the examples of a unit so far."""

    def __init__(self) -> None:
        self._worst: dict[str, list[Example]] = {}
        self._by_lot: dict[str, list[Example]] = {}

    def add(
        self, clip: EvaluatedClip, badness: float | None, audio: Mapping[str, np.ndarray], sample_rate: int
    ) -> None:
        """Add a clip if it belongs to the examples so far; `audio` float32 [n] by name."""
        category = clip.category
        worst, by_lot = self._worst.setdefault(category, []), self._by_lot.setdefault(category, [])
        candidate = Example(clip.clip.id, category, badness, fraction_of(clip.clip, "lot"), {})
        is_worst = badness is not None and candidate in _worst([*worst, candidate])
        is_drawn = candidate in _drawn([*by_lot, candidate])
        if not (is_worst or is_drawn):
            return
        length = round(MOST_SECONDS * sample_rate)
        flac = {name: encode_audio(samples[:length], sample_rate, "flac") for name, samples in audio.items()}
        example = Example(candidate.id, category, badness, candidate.lot, flac)
        if is_worst:
            self._worst[category] = _worst([*worst, example])
        if is_drawn:
            self._by_lot[category] = _drawn([*by_lot, example])

    def write(self, path: Path) -> None:
        """Write the examples to a Parquet file; none if there are none."""
        kept = {example.id: example for chosen in (*self._worst.values(), *self._by_lot.values()) for example in chosen}
        if not kept:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "id": example.id,
                "category": example.category,
                "badness": example.badness,
                "lot": example.lot,
                "system": system,
                "flac": flac,
            }
            for _, example in sorted(kept.items())
            for system, flac in example.audio.items()
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=EXAMPLES_SCHEMA), path, compression="none", row_group_size=64)


def _worst(examples: Iterable[Example]) -> list[Example]:
    return sorted(examples, key=lambda example: example._worst_first)[:WORST]


def _drawn(examples: Iterable[Example]) -> list[Example]:
    return sorted(examples, key=lambda example: (example.lot, example.id))[:BY_LOT]


@dataclass(frozen=True)
class ChosenExamples:
    """Examples of one category: its worst clips, the worst first, and clips chosen by lot."""

    category: str
    worst: Sequence[Example]
    by_lot: Sequence[Example]


def choose_examples(storage: Storage, categories: Collection[str]) -> list[ChosenExamples]:
    """Choose the examples of the whole from those of all units, for some categories in alphabetical order."""
    found: dict[str, dict[str, Example]] = {}
    places: dict[str, str] = {}
    for name in sorted(storage.sizes(EXAMPLES)):
        for row in _rows(storage, name, ["id", "category", "badness", "lot"]):
            if row["category"] not in categories:
                continue
            found.setdefault(row["category"], {})[row["id"]] = Example(**row, audio={})
            places[row["id"]] = name
    chosen = [
        ChosenExamples(
            category,
            [example for example in _worst(examples.values()) if example.badness is not None],
            _drawn(examples.values()),
        )
        for category, examples in sorted(found.items())
    ]
    wanted = {example.id for of_category in chosen for example in (*of_category.worst, *of_category.by_lot)}
    audio: dict[str, dict[str, bytes]] = {}
    for name in sorted({places[clip] for clip in wanted}):
        for row in _rows(storage, name, None):
            if row["id"] in wanted:
                audio.setdefault(row["id"], {})[row["system"]] = row["flac"]

    def with_audio(examples: Sequence[Example]) -> list[Example]:
        return [Example(each.id, each.category, each.badness, each.lot, audio[each.id]) for each in examples]

    return [ChosenExamples(each.category, with_audio(each.worst), with_audio(each.by_lot)) for each in chosen]


def _rows(storage: Storage, name: str, columns: list[str] | None) -> list[dict[str, Any]]:
    data = storage.read(name)
    with damage_errors(f"{storage.url}/{name}", "run the job again into another folder"):
        rows: list[dict[str, Any]] = pq.read_table(
            pa.BufferReader(data), columns=columns, use_threads=False
        ).to_pylist()
    return rows
