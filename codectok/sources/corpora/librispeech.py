"""LibriSpeech: `103-1240.trans.txt` with a line for each audio file beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codectok.sources.manifests.read import UnusedField, bad_row
from codectok.sources.manifests.row import ManifestRow

from .layout import CorpusFolder, Recognised
from .text_lines import text_lines

SUFFIX = ".trans.txt"
UTTERANCE = re.compile(r"(\d+)[-_]\d+[-_]\d+([-_]\d+)?")


@dataclass(frozen=True)
class LibriSpeech:
    """Transcripts of the audio files of a folder; the first number of their names is the speaker."""

    name: str = "LibriSpeech"

    def find(self, folder: CorpusFolder, names: Sequence[str]) -> Recognised | None:
        """All transcripts beside audio."""
        found = [name for name in names if name.endswith(SUFFIX)]
        return Recognised(self, found) if found and folder.audio_stems() else None

    def rows(self, folder: CorpusFolder, names: Sequence[str]) -> Iterator[ManifestRow | UnusedField]:
        """Yield a row for each line."""
        stems = folder.audio_stems()
        for name in names:
            path = folder.path(name)
            for number, line in text_lines(folder.root, path, folder.encoding):
                utterance, _, text = line.strip().replace("\t", " ", 1).partition(" ")
                audio = stems.get(utterance, [])
                if not audio:
                    yield bad_row(number, path, f"there is no audio file {utterance} beside it")
                for one in audio:
                    speaker = speaker_of(utterance)
                    yield ManifestRow(folder.path(one), id=utterance, text=text.strip() or None, speaker=speaker)


def speaker_of(utterance: str) -> str | None:
    """The speaker in the name of an utterance of LibriSpeech or LibriTTS; None in other names."""
    found = UTTERANCE.fullmatch(utterance)
    return found[1] if found else None
