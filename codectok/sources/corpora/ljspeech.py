"""LJSpeech: `metadata.csv` with `name|text|normalized text`, and `wavs/name.wav`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codectok.sources.labels import columns_of
from codectok.sources.manifests.read import UnusedField, bad_row, with_extra
from codectok.sources.manifests.row import ManifestRow
from codectok.sources.manifests.text_files import first_line

from .layout import CorpusFolder, Recognised
from .text_lines import text_lines

METADATA = "metadata.csv"
TEMPLATES = [
    f"{folder}{{}}{suffix}"
    for folder in ("wavs/", "", "wav/")
    for suffix in (".wav", "", ".flac", ".mp3", ".ogg", ".opus")
]
LINES_TO_TRY = 20


@dataclass(frozen=True)
class LJSpeech:
    """Lines of name, text and normalized text, with "|" between them; the normalized text is used."""

    name: str = "LJSpeech"

    def find(self, folder: CorpusFolder, names: Sequence[str]) -> Recognised | None:
        """A `metadata.csv` whose names are those of audio files."""
        if METADATA not in names:
            return None
        first = first_line(folder.root, folder.path(METADATA), folder.encoding)
        if "|" not in first or _is_header(first):
            return None
        return Recognised(self, [METADATA]) if _template(folder) else None

    def rows(self, folder: CorpusFolder, names: Sequence[str]) -> Iterator[ManifestRow | UnusedField]:
        """Yield a row for each line."""
        template = _template(folder) or TEMPLATES[0]
        path = folder.path(METADATA)
        for number, line in text_lines(folder.root, path, folder.encoding):
            name, *texts = (part.strip() for part in line.split("|"))
            if not name or len(texts) not in (1, 2):
                yield bad_row(number, path, 'it does not have a name and one or two texts with "|" between them')
                continue
            text = texts[-1] or texts[0]
            row = ManifestRow(folder.path(template.format(name)), id=name, text=text or None)
            yield with_extra(row, {"original_text": texts[0]} if texts[0] != text else {})


def _is_header(line: str) -> bool:
    """True for a table with a header, whose columns may stand in any order."""
    known = columns_of(tuple(cell.strip().strip("\ufeff") for cell in line.split("|")))
    return "text" in known and ("path" in known or "id" in known or "speaker" in known)


def _template(folder: CorpusFolder) -> str | None:
    """Where the audio of the first lines lies."""
    lines = itertools.islice(text_lines(folder.root, folder.path(METADATA), folder.encoding), LINES_TO_TRY)
    names = [line.partition("|")[0].strip() for _, line in lines]
    return next((t for name in names if name for t in TEMPLATES if folder.exists(t.format(name))), None)
