"""Records of many units in memory, packed: a job can have millions of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import overload

import numpy as np

from .records import UnitRecord

# The fastest level: records differ in their numbers and hashes only, and shrink to a quarter with any.
LEVEL = 1


class UnitRecords(Mapping[int, UnitRecord]):
    """Records by the number of their unit, in the order of the units; each is unpacked when it is asked for."""

    def __init__(self) -> None:
        self._packed: dict[int, bytes] = {}

    def add(self, record: UnitRecord) -> None:
        """Add or replace the record of a unit."""
        self._packed[record.unit] = zlib.compress(record.to_json(), LEVEL)

    def take(self, unit: int, others: UnitRecords) -> None:
        """Add the record of a unit as `others` holds it, packed."""
        self._packed[unit] = others._packed[unit]

    def discard(self, unit: int) -> None:
        """Remove the record of a unit, if there is one."""
        self._packed.pop(unit, None)

    @property
    def ordered(self) -> Sequence[UnitRecord]:
        """The records in the order of their units; changes later are not seen."""
        return _Ordered(self)

    def __getitem__(self, unit: int) -> UnitRecord:
        return UnitRecord.model_validate_json(zlib.decompress(self._packed[unit]))

    def __contains__(self, unit: object) -> bool:
        return unit in self._packed

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._packed))

    def __len__(self) -> int:
        return len(self._packed)


class _Ordered(Sequence[UnitRecord]):
    def __init__(self, records: UnitRecords) -> None:
        self._records, self._units = records, np.fromiter(records, np.int64, len(records))

    def __len__(self) -> int:
        return len(self._units)

    @overload
    def __getitem__(self, place: int) -> UnitRecord: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[UnitRecord]: ...

    def __getitem__(self, place: int | slice) -> UnitRecord | Sequence[UnitRecord]:
        if isinstance(place, slice):
            return [self._records[int(unit)] for unit in self._units[place]]
        return self._records[int(self._units[place])]

    def __iter__(self) -> Iterator[UnitRecord]:
        return (self._records[int(unit)] for unit in self._units)
