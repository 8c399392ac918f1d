"""Records of finished units: their counts and the files that they wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated

from pydantic import ConfigDict, Field

from codectok.config import StrictModel
from codectok.sources.rejects import ERRORS
from codectok.sources.unused import UnusedCounts, sum_unused

LARGEST_COUNT = 1 << 62
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Step = Annotated[int, Field(ge=-LARGEST_COUNT, le=LARGEST_COUNT)]
Seconds = Annotated[float, Field(allow_inf_nan=False)]


class Counts(StrictModel):
    """Counts of a unit, of one dataset in it, or of a whole job.

    Attributes:
        inputs: clips that were tried: files, spans of files, samples of tars.
        input_seconds: their duration; inputs of unknown duration are left out.
        rows: rows of output.
        seconds: audio in the output.
        codes: codes in the output.
        ignored: files that turned out not to be audio.
        rejects: number of rejected inputs by reason.
        reject_seconds: their known duration by reason.
        with_text, with_speaker, with_language: rows of output that have a text, a speaker, a language.
        unused: parts of the inputs that are not used.
    """

    model_config = ConfigDict(extra="forbid", frozen=False)

    inputs: Count = 0
    input_seconds: Seconds = 0.0
    rows: Count = 0
    seconds: Seconds = 0.0
    codes: Count = 0
    ignored: Count = 0
    rejects: dict[str, Count] = Field(default_factory=dict)
    reject_seconds: dict[str, Seconds] = Field(default_factory=dict)
    with_text: Count = 0
    with_speaker: Count = 0
    with_language: Count = 0
    unused: UnusedCounts = Field(default_factory=dict)

    @property
    def errors(self) -> int:
        """Number of rejected inputs that are broken."""
        return sum(count for reason, count in self.rejects.items() if reason in ERRORS)

    @classmethod
    def sum(cls, several: Iterable[Counts]) -> Counts:
        """Add counts in their order."""
        sums = CountsSum()
        for counts in several:
            sums.add(counts)
        return sums.total()


class CountsSum:
    """Adds counts one after the other; sums of seconds depend on the order."""

    def __init__(self) -> None:
        self._numbers: Counter[str] = Counter()
        self._rejects: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._unused: list[UnusedCounts] = []

    def add(self, counts: Counts) -> None:
        """Add counts."""
        self._numbers.update(counts.model_dump(exclude={"rejects", "reject_seconds", "unused"}))
        self._rejects.update(counts.rejects)
        self._seconds.update(counts.reject_seconds)
        if counts.unused:
            self._unused.append(counts.unused)

    def total(self) -> Counts:
        """The sum so far."""
        return Counts(
            **self._numbers,
            rejects=dict(sorted(self._rejects.items())),
            reject_seconds=dict(sorted(self._seconds.items())),
            unused=sum_unused(self._unused),
        )


class OutputFile(StrictModel):
    """A file of the output; `name` is relative to the output folder."""

    name: str
    bytes: Count
    sha256: str


class UnitRecord(StrictModel):
    """Contents of `records/NNNNNN.json`: the files of a finished unit and the counts of each dataset in it.

    Attributes:
        unit: number of the unit.
        split: "train" or "validation".
        counts: counts by dataset; the key in the file is `tallies`.
        categories: number of rows by category; rows without a category are left out.
        histograms: by quantity, the number of values in each whole step (see `output.report`).
        files: files that the unit wrote.
    """

    model_config = ConfigDict(populate_by_name=True)

    unit: Count
    split: str
    counts: dict[str, Counts] = Field(validation_alias="tallies", serialization_alias="tallies")
    categories: dict[str, Count] = Field(default_factory=dict)
    histograms: dict[str, dict[Step, Count]]
    files: tuple[OutputFile, ...]

    @property
    def total(self) -> Counts:
        """Counts of all datasets together."""
        return Counts.sum(self.counts.values())

    def to_json(self, indent: int | None = None) -> bytes:
        """The record as it is stored."""
        return self.model_dump_json(indent=indent, by_alias=True).encode()
