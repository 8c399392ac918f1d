"""The units of a plan without their sources, held in columns: a plan can have millions of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .unit import SPLITS, UnitOutline

UNIT_SCHEMA = pa.schema(
    [("unit", pa.int32()), ("split", pa.string()), ("first_source", pa.int64()), ("n_sources", pa.int32()),
     ("estimated_seconds", pa.float64())]
)  # fmt: skip
LEAST_WEIGHT = 1.0


class UnitOutlines(Sequence[UnitOutline]):
    """Outlines by the number of their unit, made when they are asked for.

    Attributes:
        estimated_seconds: audio in each unit, shape (units,).
    """

    def __init__(self) -> None:
        self.estimated_seconds: npt.NDArray[np.float64] = np.empty(0)
        self._first_sources = np.empty(0, np.int64)
        self._n_sources = np.empty(0, np.int32)
        self._splits = np.empty(0, np.int8)
        self._generation_ends: list[int] = []

    def add(self, table: pa.Table, n_units: int, n_sources: int) -> None:
        """Add the next generation from its stored table.

        Args:
            table: with the columns of `UNIT_SCHEMA`.
            n_units: number of units that the generation has.
            n_sources: number of its sources.

        Raises:
            ValueError: the table does not hold the units of the generation.
        """
        if table.num_rows != n_units:
            raise ValueError(f"it has {table.num_rows} units, but the plan has {n_units}")
        numbers, first_sources, counts, seconds = (
            _numbers_of(table, name) for name in ("unit", "first_source", "n_sources", "estimated_seconds")
        )
        splits = np.full(n_units, -1, np.int8)
        names = table.column("split").to_numpy(zero_copy_only=False)
        for code, name in enumerate(SPLITS):
            splits[names == name] = code
        ends = first_sources + counts
        inside = (first_sources >= 0) & (first_sources <= ends) & (ends <= n_sources)
        expected = np.arange(len(self), len(self) + n_units)
        wrong = np.flatnonzero(~((numbers == expected) & inside & (splits >= 0) & (seconds >= 0)))
        if len(wrong):
            raise ValueError(f"its unit {expected[wrong[0]]} is not one of the plan")
        self.estimated_seconds = np.concatenate([self.estimated_seconds, seconds])
        self._first_sources = np.concatenate([self._first_sources, first_sources])
        self._n_sources = np.concatenate([self._n_sources, counts])
        self._splits = np.concatenate([self._splits, splits])
        self._generation_ends.append(len(self._splits))

    def weights(self, units: Sequence[int]) -> npt.NDArray[np.float64]:
        """Relative time of `units`: their audio, and one second each so that ones of unknown size count as well."""
        return self.estimated_seconds[np.asarray(units, np.int64)] + LEAST_WEIGHT

    def holding(self, source: int, first_unit: int, end_unit: int) -> int:
        """Number of the unit that holds a source of the generation with the units `first_unit` to `end_unit`."""
        ends = self._first_sources[first_unit:end_unit] + self._n_sources[first_unit:end_unit]
        return first_unit + int(np.searchsorted(ends, source, side="right"))

    def __len__(self) -> int:
        return len(self._splits)

    @overload
    def __getitem__(self, number: int) -> UnitOutline: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[UnitOutline]: ...

    def __getitem__(self, number: int | slice) -> UnitOutline | Sequence[UnitOutline]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        return UnitOutline(
            number,
            next(generation for generation, end in enumerate(self._generation_ends) if number < end),
            SPLITS[self._splits[number]],
            int(self._first_sources[number]),
            int(self._n_sources[number]),
            float(self.estimated_seconds[number]),
        )

    def __iter__(self) -> Iterator[UnitOutline]:
        return (self[number] for number in range(len(self)))


def _numbers_of(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    column = table.column(name)
    if column.null_count:
        raise ValueError(f"its column {name!r} has gaps")
    found: npt.NDArray[np.float64] = column.to_numpy()
    return found
