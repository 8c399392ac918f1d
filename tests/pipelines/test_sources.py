from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from codectok import InputError
from codectok.pipelines.sources import cut_into_units, list_sources


def test_a_folder_is_listed_in_order_without_opening_anything(corpus: Path) -> None:
    listing = list_sources([str(corpus)], kinds=("audio",))
    paths = [source.path for source in listing.sources]
    assert paths == sorted(paths)
    assert "sub folder/c ü.ogg" in paths
    assert "text.wav" in paths  # what it really is shows when its unit opens it
    assert not any("hidden" in path for path in paths)
    assert listing.ignored == 1
    assert {source.dataset for source in listing.sources} == {"speech"}


def test_moving_a_corpus_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "speech"
    shutil.copytree(corpus, moved)
    assert list_sources([str(corpus)], ("audio",)).hash == list_sources([str(moved)], ("audio",)).hash
    (moved / "a.wav").unlink()
    assert list_sources([str(corpus)], ("audio",)).hash != list_sources([str(moved)], ("audio",)).hash


def test_the_order_of_arguments_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(corpus / "sub folder", other)
    one, two = str(corpus), str(other)
    assert list_sources([one, two, one], ("audio",)) == list_sources([two, one, one], ("audio",))


def test_a_dataset_can_be_named(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "speech"
    shutil.copytree(corpus / "sub folder", other)
    with pytest.raises(InputError, match="Two sources are named 'speech'"):
        list_sources([str(corpus), str(other)], ("audio",))
    listing = list_sources([str(corpus), f"more={other}"], ("audio",))
    assert {source.dataset for source in listing.sources} == {"speech", "more"}


def test_single_files_are_sources(corpus: Path) -> None:
    listing = list_sources([str(corpus / "a.wav"), str(corpus / "b.flac")], ("audio",))
    assert [(source.dataset, source.path) for source in listing.sources] == [("speech", "a.wav"), ("speech", "b.flac")]


def test_units_partition_the_list_and_depend_on_sizes_alone(corpus: Path) -> None:
    sources = list_sources([str(corpus)], ("audio",)).sources
    units = cut_into_units(sources, 10.0)
    assert [source for unit in units for source in unit.sources] == list(sources)
    assert [unit.number for unit in units] == list(range(len(units)))
    assert len(units) > 1
    for unit in units:
        assert len(unit.sources) == 1 or sum(source.estimated_seconds for source in unit.sources) <= 10.0


def test_a_tar_is_a_unit_of_its_own(tmp_path: Path) -> None:
    for name in ("a.wav", "b.tar", "c.tar", "d.wav", "e.wav"):
        (tmp_path / name).write_bytes(b"x")
    units = cut_into_units(list_sources([str(tmp_path)], ("audio", "tar")).sources, 3600)
    assert [[source.path for source in unit.sources] for unit in units] == [
        ["a.wav"], ["b.tar"], ["c.tar"], ["d.wav", "e.wav"],
    ]  # fmt: skip


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_nothing_to_read_is_refused(content: str | None, tmp_path: Path) -> None:
    if content:
        (tmp_path / content).write_text("text")
    with pytest.raises(InputError, match="There are no audio files"):
        list_sources([str(tmp_path)], ("audio",))
    with pytest.raises(InputError, match="There is no file or folder"):
        list_sources([str(tmp_path / "nowhere")], ("audio",))


def test_links_are_followed_once_and_those_that_lead_nowhere_are_listed(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(corpus / "sub folder")
    (root / "up").symlink_to(root)
    (root / "lost.wav").symlink_to(tmp_path / "nowhere.wav")
    paths = [source.path for source in list_sources([str(root)], ("audio",)).sources]
    assert paths == ["linked/c ü.ogg", "linked/d.mp3", "lost.wav"]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_units_are_refused(corpus: Path, seconds: float) -> None:
    with pytest.raises(InputError, match="above 0"):
        cut_into_units(list_sources([str(corpus)], ("audio",)).sources, seconds)
