"""Listing folders, patterns, files and links."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from codectok import InputError
from codectok.sources.kinds import Kind
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.ordering import ordered_sources
from codectok.sources.listing.sources import Listing, list_sources
from codectok.sources.source import Source
from codectok.storage import open_storage

AUDIO: tuple[Kind, ...] = ("audio", "unknown")


def listed(*arguments: Path | str, kinds: tuple[Kind, ...] = AUDIO) -> Listing:
    return list_sources(*parse_arguments([str(argument) for argument in arguments]), kinds)


def sources(*arguments: Path | str, kinds: tuple[Kind, ...] = AUDIO) -> list[Source]:
    return list(ordered_sources(listed(*arguments, kinds=kinds)))


def paths(*arguments: Path | str, kinds: tuple[Kind, ...] = AUDIO) -> list[str]:
    return [source.path for source in sources(*arguments, kinds=kinds)]


def test_folder_is_listed_in_order_without_opening_files(corpus: Path) -> None:
    found = paths(corpus)
    assert found == sorted(found)
    assert "sub folder/c ü.ogg" in found
    assert "text.wav" in found  # its unit will find that it is not audio
    assert not any("hidden" in path for path in found)
    assert listed(corpus).ignored == 1
    assert {source.dataset for source in sources(corpus)} == {"speech"}


def test_files_without_suffix_are_listed_as_unknown(corpus: Path, tmp_path: Path) -> None:
    shutil.copy(corpus / "a.wav", tmp_path / "recording")
    (tmp_path / "README").write_text("text")
    (tmp_path / "list.txt").write_text("text")
    assert [(source.path, source.kind) for source in sources(tmp_path)] == [
        ("README", "unknown"),
        ("recording", "unknown"),
    ]
    assert paths(f"x={corpus}", kinds=("audio",)) == paths(corpus)


def test_order_of_arguments_does_not_matter(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(corpus / "sub folder", other)
    assert sources(corpus, other, corpus) == sources(other, corpus, corpus)


def test_dataset_name_can_be_given(corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "speech"
    shutil.copytree(corpus / "sub folder", other)
    with pytest.raises(InputError, match="Two sources are named 'speech'"):
        parse_arguments([str(corpus), str(other)])
    assert {source.dataset for source in sources(corpus, f"more={other}")} == {"speech", "more"}


def test_files_and_patterns_are_listed(corpus: Path) -> None:
    assert [(s.dataset, s.path) for s in sources(corpus / "a.wav", corpus / "b.flac")] == [
        ("speech", "a.wav"),
        ("speech", "b.flac"),
    ]
    assert paths(corpus / "**" / "*.[om]*") == ["e.opus", "sub folder/c ü.ogg", "sub folder/d.mp3"]
    assert paths(corpus / "*" / "*.mp3") == ["sub folder/d.mp3"]
    assert paths(corpus.parent / "spee*") == [f"speech/{path}" for path in paths(corpus)]
    with pytest.raises(InputError, match="There are no audio files"):
        listed(corpus / "*.midi")


@pytest.fixture
def partitions(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus whose folders have names of the form KEY=VALUE, and another folder, below the current folder."""
    for folder in ("language=de", "language=en", "other"):
        (tmp_path / folder).mkdir()
        shutil.copy(corpus / "b.flac", tmp_path / folder / f"{folder[-2:]}.flac")
    shutil.copy(corpus / "a.wav", tmp_path / "take=1.wav")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("partitions")
def test_paths_with_an_equals_sign_are_no_names_of_datasets() -> None:
    assert paths("language=*/*.flac") == ["language=de/de.flac", "language=en/en.flac"]
    assert paths("language=de/*.flac") == paths("language=de/de.flac") == paths("language=de") == ["de.flac"]
    assert paths("take=*.wav") == ["take=1.wav"]
    with pytest.raises(InputError, match=r"There is no file or folder language=de/no\.flac"):
        listed("language=de/no.flac")
    for argument in ("speaker=*/*.flac", "speaker=**/*.flac", "language=**/*.flac"):
        assert len(paths(argument)) == 3
        assert listed(argument).datasets[0] == argument.partition("=")[0]
    assert [(source.dataset, source.path) for source in sources("language=other")] == [("language", "er.flac")]


@pytest.mark.parametrize("pattern", ["**.flac", "a/**.flac", "x=**.flac", "s3://bucket/a/**.flac"])
def test_pattern_with_two_stars_inside_a_name_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match=r"write \*\*/\*\.flac"):
        parse_arguments([pattern])


@pytest.mark.parametrize("argument", ["", "x="])
def test_empty_names_of_sources_are_refused(argument: str) -> None:
    with pytest.raises(InputError, match="source is empty"):
        parse_arguments([argument])


@pytest.mark.parametrize("place", ["", "file://"])
def test_empty_names_of_outputs_are_refused(place: str) -> None:
    with pytest.raises(InputError, match="name of a folder is empty"):
        open_storage(place)


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_empty_sources_are_refused(content: str | None, tmp_path: Path) -> None:
    if content:
        (tmp_path / content).write_text("text")
    with pytest.raises(InputError, match="There are no audio files"):
        listed(tmp_path)
    with pytest.raises(InputError, match="There is no file or folder"):
        listed(tmp_path / "nowhere")


def test_links_are_followed_once_and_broken_links_listed(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(corpus / "sub folder")
    (root / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "lost.wav").symlink_to(tmp_path / "nowhere.wav")
    assert paths(root, kinds=("audio",)) == ["linked/c ü.ogg", "linked/d.mp3", "lost.wav"]


def test_linked_folders_are_entered_after_real_folders(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(corpus / "sub folder", root / "m")
    before = paths(root)
    for name in ("a", "z"):
        (root / name).symlink_to(root / "m")
    (root / "m" / "up").symlink_to(root)
    assert paths(root) == before
    assert paths(root / "*") == before
    assert paths(root / "*" / "*.mp3") == [path for path in before if path.endswith(".mp3")]


def test_first_of_several_links_to_a_folder_is_entered(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in (3, 1, 2):
        (root / str(number)).mkdir(parents=True)
        (root / str(number) / "link").symlink_to(corpus / "sub folder")
    assert paths(root) == ["1/link/c ü.ogg", "1/link/d.mp3"]


@pytest.mark.parametrize("argument", ["", "*", "**/*.mp3", "out", "out/*", "in/../out/deeper"])
def test_output_folder_is_not_listed(argument: str, corpus: Path, tmp_path: Path) -> None:
    for folder in ("in", "out", "out/deeper"):
        (tmp_path / folder).mkdir()
        shutil.copy(corpus / "sub folder" / "d.mp3", tmp_path / folder)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    arguments = [str(tmp_path / "in"), str(tmp_path / argument)]
    listing = list_sources(*parse_arguments([f"a={arguments[0]}", f"b={arguments[1]}"]), AUDIO, tmp_path / "link")
    assert set(listing.paths) <= {"d.mp3", "in/d.mp3"}
    assert listing.datasets.count("b") == (1 if argument in ("", "*", "**/*.mp3") else 0)
