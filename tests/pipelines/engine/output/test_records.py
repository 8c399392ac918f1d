"""Records, names of unit files, and run options."""

from __future__ import annotations

import json

import pytest

from codectok import InputError
from codectok.pipelines.engine.lock import JobShare
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.records import Counts, OutputFile, UnitRecord
from codectok.pipelines.engine.output.unit_files import (
    code_counts_name,
    failure_name,
    part_name,
    record_name,
    rejects_name,
    shard_name,
    unit_of_file,
)
from codectok.shards import index_name


def test_record_keeps_its_json_keys() -> None:
    file = OutputFile(name="part-000007.parquet", bytes=1, sha256="0")
    record = UnitRecord(unit=7, split="train", counts={"a": Counts(rows=2)}, histograms={}, files=(file,))
    assert list(json.loads(record.to_json())) == ["unit", "split", "tallies", "categories", "histograms", "files"]
    assert UnitRecord.model_validate_json(record.to_json(indent=2)) == record


def test_unit_files_belong_to_their_unit() -> None:
    shard = shard_name(7)
    names = [
        part_name(7),
        f"{part_name(7, '')}/clip.audio",
        part_name(7, ".idx"),
        shard,
        index_name(shard),
        record_name(7),
        failure_name(7),
        code_counts_name(7),
        rejects_name(7),
    ]
    assert [unit_of_file(name) for name in names] == [7] * len(names)


@pytest.mark.parametrize(
    "name",
    [
        "shards.json",
        "_codectok/plan/000-sources.parquet",
        "_codectok/first-pass/part-000007.parquet",
        "_codectok/tmp/whole/000007-1-abc/part-000007.parquet",
        "_codectok/locks/part-1-of-2",
    ],
)
def test_other_files_belong_to_no_unit(name: str) -> None:
    assert unit_of_file(name) is None


def test_cores_of_an_own_ray_fit_workers_and_gpus() -> None:
    assert RunOptions(workers=3).cores_to_start(threads=2, gpus=1) == 7
    assert RunOptions().cores_to_start(threads=2, gpus=1) is None


def test_share_cannot_extend() -> None:
    with pytest.raises(InputError, match="extend"):
        RunOptions(extend=True, part=JobShare(1, 2))
