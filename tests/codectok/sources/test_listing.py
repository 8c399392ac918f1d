from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from codectok import InputError
from codectok.pipelines.engine.cutting import CuttingPolicy
from codectok.pipelines.engine.plan import Plan, PlanHeader, load_plan
from codectok.pipelines.engine.planning import ordered_sources, store_generation
from codectok.sources.arguments import parse_arguments
from codectok.sources.listing import Listing, list_sources
from codectok.sources.source import Kind, Source
from codectok.storage import LocalStorage

AUDIO: tuple[Kind, ...] = ("audio", "unknown")


def listed(*arguments: Path | str, kinds: tuple[Kind, ...] = AUDIO) -> Listing:
    return list_sources(*parse_arguments([str(argument) for argument in arguments]), kinds)


def sources(*arguments: Path | str, kinds: tuple[Kind, ...] = AUDIO) -> list[Source]:
    return list(ordered_sources(listed(*arguments, kinds=kinds)))


def paths(*arguments: Path | str, kinds: tuple[Kind, ...] = AUDIO) -> list[str]:
    return [source.path for source in sources(*arguments, kinds=kinds)]


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


def test_a_folder_is_listed_in_order_without_opening_anything(corpus: Path) -> None:
    found = paths(corpus)
    assert found == sorted(found)
    assert "sub folder/c ü.ogg" in found
    assert "text.wav" in found  # what it really is shows when its unit opens it
    assert not any("hidden" in path for path in found)
    assert listed(corpus).ignored == 1
    assert {source.dataset for source in sources(corpus)} == {"speech"}


def test_files_without_a_telling_name_are_left_to_their_unit(corpus: Path, tmp_path: Path) -> None:
    shutil.copy(corpus / "a.wav", tmp_path / "recording")
    (tmp_path / "README").write_text("text")
    (tmp_path / "list.txt").write_text("text")
    assert [(source.path, source.kind) for source in sources(tmp_path)] == [
        ("README", "unknown"),
        ("recording", "unknown"),
    ]
    assert paths(f"x={corpus}", kinds=("audio",)) == paths(corpus)


def test_the_order_of_arguments_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(corpus / "sub folder", other)
    assert sources(corpus, other, corpus) == sources(other, corpus, corpus)


def test_a_dataset_can_be_named(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "speech"
    shutil.copytree(corpus / "sub folder", other)
    with pytest.raises(InputError, match="Two sources are named 'speech'"):
        parse_arguments([str(corpus), str(other)])
    assert {source.dataset for source in sources(corpus, f"more={other}")} == {"speech", "more"}


def test_single_files_and_patterns_are_sources(corpus: Path) -> None:
    assert [(s.dataset, s.path) for s in sources(corpus / "a.wav", corpus / "b.flac")] == [
        ("speech", "a.wav"),
        ("speech", "b.flac"),
    ]
    assert paths(corpus / "**" / "*.[om]*") == ["e.opus", "sub folder/c ü.ogg", "sub folder/d.mp3"]
    assert paths(corpus / "*" / "*.mp3") == ["sub folder/d.mp3"]
    assert paths(corpus.parent / "spee*") == [f"speech/{path}" for path in paths(corpus)]
    with pytest.raises(InputError, match="There are no audio files"):
        listed(corpus / "*.midi")


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_nothing_to_read_is_refused(content: str | None, tmp_path: Path) -> None:
    if content:
        (tmp_path / content).write_text("text")
    with pytest.raises(InputError, match="There are no audio files"):
        listed(tmp_path)
    with pytest.raises(InputError, match="There is no file or folder"):
        listed(tmp_path / "nowhere")


def test_links_are_followed_once_and_those_that_lead_nowhere_are_listed(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(corpus / "sub folder")
    (root / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "lost.wav").symlink_to(tmp_path / "nowhere.wav")
    assert paths(root, kinds=("audio",)) == ["linked/c ü.ogg", "linked/d.mp3", "lost.wav"]


def test_any_name_can_be_listed_and_planned(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    names = ["a b.wav", "new\nline.wav", "ünï.wav", "a.b.c.wav", "-x.wav", "[x]*.wav", os.fsdecode(b"caf\xe9.wav")]
    try:
        for name in names:
            (root / name).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    plan = planned(tmp_path, root)
    found = [source.path for number in range(len(plan.units)) for source in plan.unit(number).sources]
    assert sorted(found) == sorted(names)
    assert all((root / path).exists() for path in found)


def test_units_partition_the_list_and_depend_on_sizes_alone(corpus: Path, tmp_path: Path) -> None:
    plan = planned(tmp_path, corpus)
    units = [plan.unit(number) for number in range(len(plan.units))]
    assert [source for unit in units for source in unit.sources] == sources(corpus)
    assert len(units) > 1
    for outline in plan.units:
        assert outline.n_sources == 1 or outline.estimated_seconds <= 10.0


def test_a_tar_is_a_unit_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.wav", "b.tar", "c.tar", "d.wav", "e.wav"):
        (tmp_path / "in" / name).write_bytes(b"x")
    plan = planned(tmp_path, tmp_path / "in", unit_seconds=3600, kinds=("audio", "tar"))
    assert [[source.path for source in plan.unit(number).sources] for number in range(4)] == [
        ["a.wav"], ["b.tar"], ["c.tar"], ["d.wav", "e.wav"],
    ]  # fmt: skip


def test_a_share_of_the_files_is_kept_apart_and_stays_there(tmp_path: Path) -> None:
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


def test_an_extended_plan_keeps_its_units(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "in"
    shutil.copytree(corpus, root)
    before = planned(tmp_path, root)
    shutil.copy(corpus / "a.wav", root / "0.wav")
    after = planned(tmp_path, root)
    assert after.units[: len(before.units)] == before.units
    assert [source.path for source in after.unit(len(before.units)).sources] == ["0.wav"]
    assert len(after.units) == len(before.units) + 1
    assert before.header.hash != after.header.hash


def test_a_link_is_entered_after_the_folders_wherever_its_name_stands(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(corpus / "sub folder", root / "m")
    before = paths(root)
    for name in ("a", "z"):
        (root / name).symlink_to(root / "m")
    (root / "m" / "up").symlink_to(root)
    assert paths(root) == before
    assert paths(root / "*") == before
    assert paths(root / "*" / "*.mp3") == [path for path in before if path.endswith(".mp3")]


def test_of_several_links_to_one_folder_the_first_by_name_is_entered(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in (3, 1, 2):
        (root / str(number)).mkdir(parents=True)
        (root / str(number) / "link").symlink_to(corpus / "sub folder")
    assert paths(root) == ["1/link/c ü.ogg", "1/link/d.mp3"]


@pytest.mark.parametrize("argument", ["", "*", "**/*.mp3", "out", "out/*", "in/../out/deeper"])
def test_the_output_of_the_job_is_no_source(argument: str, corpus: Path, tmp_path: Path) -> None:
    for folder in ("in", "out", "out/deeper"):
        (tmp_path / folder).mkdir()
        shutil.copy(corpus / "sub folder" / "d.mp3", tmp_path / folder)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    arguments = [str(tmp_path / "in"), str(tmp_path / argument)]
    listing = list_sources(*parse_arguments([f"a={arguments[0]}", f"b={arguments[1]}"]), AUDIO, tmp_path / "link")
    assert set(listing.paths) <= {"d.mp3", "in/d.mp3"}
    assert listing.datasets.count("b") == (1 if argument in ("", "*", "**/*.mp3") else 0)
