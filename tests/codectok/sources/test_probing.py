"""Which files of a folder are read, and which are ignored."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.sources.kinds import AUDIO_KINDS
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.sources import Listing, list_sources
from tests.helpers.audio import tone


def listed(folder: Path | str) -> Listing:
    return list_sources(*parse_arguments([str(folder)]), AUDIO_KINDS)


def files(folder: Path) -> None:
    """Audio under wrong names beside files without sound."""
    for name, audio_format in (
        ("a.txt", "FLAC"),
        ("b.json", "OGG"),
        ("c.bin", "WAV"),
        ("d.jpg", "MP3"),
        ("e.zip", "AU"),
    ):
        soundfile.write(folder / name, tone(1, 16_000), 16_000, format=audio_format)
    soundfile.write(folder / "good.wav", tone(1, 16_000), 16_000)
    (folder / "words.txt").write_text("words " * 1000)
    (folder / "labels.json").write_text("{}")
    (folder / "empty.txt").touch()
    (folder / "image.jpg").write_bytes(b"\xff\xd8\xff\xe0" + np.random.default_rng(0).bytes(5000))
    shutil.make_archive(str(folder / "more"), "zip", folder, "words.txt")


def test_audio_under_names_of_other_files_is_listed(tmp_path: Path) -> None:
    files(tmp_path)
    listing = listed(tmp_path)
    assert sorted(listing.paths) == ["a.txt", "b.json", "c.bin", "d.jpg", "e.zip", "good.wav"]
    (unused,) = listing.unused.values()
    counts = {name: (entry.count, entry.example) for name, entry in unused["ignored_files"].items()}
    assert counts == {
        ".txt": (2, "empty.txt"),
        ".json": (1, "labels.json"),
        ".jpg": (1, "image.jpg"),
        ".zip (archives: unpack them first)": (1, "more.zip"),
    }


def test_audio_under_other_names_is_found_in_stores(tmp_path: Path) -> None:
    files(tmp_path)
    assert sorted(listed(f"file://{tmp_path}").paths) == sorted(listed(tmp_path).paths)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi", "film.ts", "noname", "x.dat"])
def test_films_and_unknown_files_are_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    listing = listed(tmp_path)
    assert list(listing.kinds) == ["unknown"]
    (clip,) = clips_of(listing.source(0))
    assert isinstance(clip, Clip)
    assert clip.maybe_audio
