"""Stored plans: their sources, units and splits."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from codectok.pipelines.engine.planning.cutting import CuttingPolicy
from codectok.pipelines.engine.planning.header import PlanHeader
from codectok.pipelines.engine.planning.plan import Plan, load_plan
from codectok.pipelines.engine.planning.store import store_generation
from codectok.sources.kinds import Kind
from codectok.storage import LocalStorage
from tests.codectok.sources.test_listing import AUDIO, listed, sources


def planned(
    folder: Path,
    *arguments: Path | str,
    unit_seconds: float = 10.0,
    validation: float = 0.0,
    kinds: tuple[Kind, ...] = AUDIO,
) -> Plan:
    storage = LocalStorage(folder / "out")
    header = PlanHeader(verb="test", bytes_version=1, options={}, generations=())
    listing = listed(*arguments, kinds=kinds)
    policy = CuttingPolicy(unit_seconds, validation)
    store_generation(storage, load_plan(storage, listing.roots), header, listing, policy)
    plan = load_plan(storage, listing.roots)
    assert plan is not None
    return plan


def test_plan_keeps_any_file_name(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    names = ["a b.wav", "new\nline.wav", "ünï.wav", "a.b.c.wav", "-x.wav", "[x]*.wav", os.fsdecode(b"caf\xe9.wav")]
    try:
        for name in names:
            (root / name).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system allows UTF-8 names only")
    plan = planned(tmp_path, root)
    found = [source.path for number in range(len(plan.units)) for source in plan.unit(number).sources]
    assert sorted(found) == sorted(names)
    assert all((root / path).exists() for path in found)


def test_units_partition_the_sources(corpus: Path, tmp_path: Path) -> None:
    plan = planned(tmp_path, corpus)
    units = [plan.unit(number) for number in range(len(plan.units))]
    assert [source for unit in units for source in unit.sources] == sources(corpus)
    assert len(units) > 1
    for outline in plan.units:
        assert outline.n_sources == 1 or outline.estimated_seconds <= 10.0


def test_tar_is_one_unit(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "b.tar", "c.tar", "d.wav", "e.wav"):
        (tmp_path / "in" / name).write_bytes(b"x")
    plan = planned(tmp_path, tmp_path / "in", unit_seconds=3600, kinds=("audio", "tar"))
    assert [[source.path for source in plan.unit(number).sources] for number in range(4)] == [
        ["a.wav"], ["b.tar"], ["c.tar"], ["d.wav", "e.wav"],
    ]  # fmt: skip


def test_validation_split_does_not_depend_on_other_files(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for number in range(400):
        (root / f"{number}.wav").write_bytes(b"x" * 100_000)
    plan = planned(tmp_path, root, unit_seconds=30, validation=0.2)
    held_out = {
        source.path
        for outline in plan.units
        if outline.split == "validation"
        for source in plan.unit(outline.number).sources
    }
    assert 50 < len(held_out) < 110
    (root / "new.wav").write_bytes(b"x")
    again = planned(tmp_path / "other", root, unit_seconds=50, validation=0.2)
    assert held_out - {"new.wav"} == {
        source.path
        for outline in again.units
        if outline.split == "validation"
        for source in again.unit(outline.number).sources
    } - {"new.wav"}
    assert {outline.split for outline in plan.units} == {"train", "validation"}


def test_extended_plan_keeps_its_units(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    shutil.copytree(corpus, root)
    before = planned(tmp_path, root)
    shutil.copy(corpus / "a.wav", root / "0.wav")
    after = planned(tmp_path, root)
    assert after.units[: len(before.units)] == list(before.units)
    assert [source.path for source in after.unit(len(before.units)).sources] == ["0.wav"]
    assert len(after.units) == len(before.units) + 1
    assert before.header.hash != after.header.hash


def test_plan_has_a_source_of_each_dataset(corpus: Path, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        shutil.copytree(corpus, tmp_path / name)
    plan = planned(tmp_path, tmp_path / "one", tmp_path / "two")
    assert [source.dataset for source in plan.source_of_each_dataset()] == ["one", "two"]
    after = planned(tmp_path, tmp_path / "one", tmp_path / "two", tmp_path / "three")
    found = after.source_of_each_dataset()
    assert [source.dataset for source in found] == ["one", "three", "two"]
    assert all((tmp_path / source.dataset / source.path).exists() for source in found)
