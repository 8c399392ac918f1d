"""A text beside each audio file: `a.txt` or `a.lab` beside `a.wav`, and the two texts of LibriTTS."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codectok.sources.manifests.read import UnusedField, with_extra
from codectok.sources.manifests.row import ManifestRow

from .layout import CorpusFolder, Recognised
from .librispeech import speaker_of
from .text_lines import read_text

NORMALIZED, ORIGINAL = ".normalized.txt", ".original.txt"
SUFFIXES = (NORMALIZED, ORIGINAL, ".txt", ".lab")  # the first that exists is used
NOTES = (".txt", ".lab")  # may hold something else than words, such as a description, if they have several lines
# Labels with times are not words: HTK counts 100 ns, Audacity seconds.
TIMED = re.compile(r"\s*-?[\d.]+\s+-?[\d.]+(\s|$)")


@dataclass(frozen=True)
class Sidecars:
    """A text file for each audio file, with the same name in the same folder."""

    name: str = "a text beside each audio file"

    def find(self, folder: CorpusFolder, names: Sequence[str]) -> Recognised | None:
        """All texts whose audio is in the folder."""
        stems = folder.audio_stems()
        found = {stem: suffixes for stem in stems if (suffixes := _suffixes(stem, folder))}
        used = [stem + suffix for stem, suffixes in found.items() for suffix in suffixes[:1]]
        used += [stem + ORIGINAL for stem, suffixes in found.items() if suffixes[:2] == [NORMALIZED, ORIGINAL]]
        return Recognised(self, sorted(used)) if used else None

    def rows(self, folder: CorpusFolder, names: Sequence[str]) -> Iterator[ManifestRow | UnusedField]:
        """Yield a row for each audio file with a text."""
        for stem, audio in sorted(folder.audio_stems().items()):
            suffixes = _suffixes(stem, folder)
            for name in audio if suffixes else ():
                row = ManifestRow(folder.path(name))
                try:
                    text = read_text(folder.root, folder.path(stem + suffixes[0]), folder.encoding)
                    original = text
                    if suffixes[:2] == [NORMALIZED, ORIGINAL]:
                        original = read_text(folder.root, folder.path(stem + ORIGINAL), folder.encoding)
                except ValueError as error:
                    yield row._replace(problem=f"The text of {folder.path(name)} cannot be used: {error}.")
                    continue
                if TIMED.match(text):
                    yield UnusedField(f"times in {suffixes[0]}", folder.path(stem + suffixes[0]))
                elif suffixes[0] in NOTES and len(text.split("\n")) > 1:
                    yield UnusedField(f"several lines in {suffixes[0]}", folder.path(stem + suffixes[0]))
                elif text:
                    labelled = row._replace(text=text, speaker=speaker_of(stem))
                    yield with_extra(labelled, {"original_text": original} if original != text else {})


def _suffixes(stem: str, folder: CorpusFolder) -> list[str]:
    return [suffix for suffix in SUFFIXES if stem + suffix in folder.files]
