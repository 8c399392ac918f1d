"""Output of one unit: a folder for its files, and counts of its inputs and rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from codectok.audio.spans import Span
from codectok.phases import PhaseClock
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.clip import WHOLE
from codectok.sources.kinds import suffix_of
from codectok.sources.rejects import Reject, RejectsWriter
from codectok.sources.unused import Unused, UnusedCounts, add_unused

from .records import Counts, OutputFile, UnitRecord
from .unit_files import rejects_name


@dataclass(slots=True)
class _RunningCounts:
    """Counts that change with every row; `Counts` is slow to change."""

    inputs: int = 0
    input_seconds: float = 0.0
    rows: int = 0
    seconds: float = 0.0
    codes: int = 0
    ignored: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    reject_seconds: dict[str, float] = field(default_factory=dict)
    with_text: int = 0
    with_speaker: int = 0
    with_language: int = 0
    unused: UnusedCounts = field(default_factory=dict)

    def finished(self) -> Counts:
        """Return the counts so far."""
        return Counts.model_construct(**{each.name: getattr(self, each.name) for each in fields(self)})


class UnitOutput:
    """Receives the files, counts and rejects of a unit.

    Attributes:
        folder: for files, laid out as in the output folder.
        first_rejects: first reject of each dataset and reason, in their order.
        clock: clock of the unit; jobs name its phases (see `codectok.phases`).
    """

    def __init__(self, unit: Unit, folder: Path) -> None:
        self.folder, self.clock = folder, PhaseClock()
        self._unit = unit
        self._counts: defaultdict[str, _RunningCounts] = defaultdict(_RunningCounts)
        self._rejects = RejectsWriter(folder / rejects_name(unit.number))
        self.first_rejects: dict[tuple[str, str], Reject] = {}
        self._categories: Counter[str] = Counter()
        self._histograms: dict[str, Counter[int]] = {}

    def read(self, dataset: str, seconds: float | None = None, inputs: int = 1) -> None:
        """Count inputs, and their duration if it is known."""
        counts = self._counts[dataset]
        counts.inputs += inputs
        counts.input_seconds += seconds or 0.0

    def keep(self, dataset: str, seconds: float, codes: int = 0, span: Span = WHOLE) -> None:
        """Count a row of output, with the text and labels of `span`."""
        counts = self._counts[dataset]
        counts.rows += 1
        counts.seconds += seconds
        counts.codes += codes
        if span is WHOLE:
            return
        labels = span.labels
        if labels.category is not None:
            self._categories[labels.category] += 1
        counts.with_text += span.text is not None
        counts.with_speaker += labels.speaker is not None
        counts.with_language += labels.language is not None

    def reject(self, reject: Reject) -> None:
        """Count and store a span of an input that becomes no output."""
        counts = self._counts[reject.dataset]
        counts.rejects[reject.reason] = counts.rejects.get(reject.reason, 0) + 1
        seconds = counts.reject_seconds.get(reject.reason, 0.0) + (reject.duration or 0.0)
        counts.reject_seconds[reject.reason] = seconds
        self.first_rejects.setdefault((reject.dataset, reject.reason), reject)
        self._rejects.add(reject)

    def ignore(self, dataset: str, name: str) -> None:
        """Count the file `name`, of unknown kind, that is not audio."""
        self.leave_unused(dataset, Unused("ignored_files", suffix_of(name), example=name))

    def leave_unused(self, dataset: str, unused: Unused) -> None:
        """Count a part of an input that is not used; a part of the kind "ignored_files" is a file without audio."""
        counts = self._counts[dataset]
        counts.ignored += unused.count if unused.kind == "ignored_files" else 0
        add_unused(counts.unused, unused)

    def observe(self, quantity: str, step: int) -> None:
        """Count a value in the histogram of a quantity."""
        self._histograms.setdefault(quantity, Counter())[step] += 1

    @property
    def first_reject(self) -> Reject | None:
        """The first reject of the unit; None so far."""
        return next(iter(self.first_rejects.values()), None)

    @property
    def rows(self) -> int:
        """Rows of output so far."""
        return sum(counts.rows for counts in self._counts.values())

    def record(self, files: Sequence[OutputFile]) -> UnitRecord:
        """Record of the unit with its counts and `files`."""
        return UnitRecord(
            unit=self._unit.number,
            split=self._unit.split,
            counts={name: counts.finished() for name, counts in sorted(self._counts.items())},
            categories=dict(sorted(self._categories.items())),
            histograms={name: dict(sorted(counts.items())) for name, counts in sorted(self._histograms.items())},
            files=tuple(files),
        )

    def finish_rejects(self) -> None:
        """Write the rejects, if there are any, to a file in the folder."""
        self._rejects.close()
