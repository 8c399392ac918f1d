"""Records of many units in memory."""

from __future__ import annotations

import pytest

from codectok.pipelines.engine.output.record_set import UnitRecords
from codectok.pipelines.engine.output.records import Counts, OutputFile, UnitRecord


def record(unit: int, seconds: float = 0.1) -> UnitRecord:
    counts = Counts(inputs=unit, input_seconds=seconds, rejects={"silent": 1}, reject_seconds={"silent": 1 / 3})
    files = (OutputFile(name=f"part-{unit:06d}.parquet", bytes=unit, sha256="ab" * 32),)
    return UnitRecord(unit=unit, split="train", counts={"a": counts}, histograms={"seconds": {-1: 2}}, files=files)


def test_records_are_returned_as_they_were_added() -> None:
    found = UnitRecords()
    for unit in (5, 0, 3):
        found.add(record(unit, 0.1 * unit + 1e-17))
    assert list(found) == [0, 3, 5]
    assert [found[unit] for unit in found] == [record(unit, 0.1 * unit + 1e-17) for unit in (0, 3, 5)]
    assert 3 in found
    assert 4 not in found
    with pytest.raises(KeyError):
        found[4]


def test_records_can_be_replaced_and_removed() -> None:
    found = UnitRecords()
    found.add(record(1))
    found.add(record(1, 7.0))
    found.add(record(2))
    before = found.ordered
    found.discard(2)
    found.discard(2)
    assert list(found.items()) == [(1, record(1, 7.0))]
    assert len(before) == 2
    assert before[0] == record(1, 7.0)
    assert before[:1] == [record(1, 7.0)]
    assert list(found.ordered) == [record(1, 7.0)]


def test_records_are_taken_from_others() -> None:
    others, found = UnitRecords(), UnitRecords()
    others.add(record(4, 0.3))
    found.take(4, others)
    assert dict(found) == {4: record(4, 0.3)}
