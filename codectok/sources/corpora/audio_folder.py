"""AudioFolder of Hugging Face: `metadata.csv` or `metadata.jsonl` with the column `file_name`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codectok.sources.manifests.read import UnusedField, read_rows_and_unused, renaming
from codectok.sources.manifests.row import ManifestRow
from codectok.sources.manifests.text_files import first_line

from .layout import CorpusFolder, Recognised

NAMES = ("metadata.csv", "metadata.jsonl")
FILE_NAME = "file_name"
RENAMED = {FILE_NAME: "path", "transcription": "text"}


@dataclass(frozen=True)
class AudioFolder:
    """A table of the files of a folder."""

    name: str = "AudioFolder"

    def find(self, folder: CorpusFolder, names: Sequence[str]) -> Recognised | None:
        """The one table with file names; two are not read."""
        found = [name for name in NAMES if name in names and FILE_NAME in _columns(folder, name)]
        if len(found) > 1:
            return Recognised(self, (), found)
        return Recognised(self, found) if found else None

    def rows(self, folder: CorpusFolder, names: Sequence[str]) -> Iterator[ManifestRow | UnusedField]:
        """Yield a row for each line."""
        for name in names:
            for row in read_rows_and_unused(folder.root, folder.path(name), renaming(RENAMED), folder.encoding):
                if isinstance(row, ManifestRow) and not row.path.startswith(f"{folder.path(name)}#"):
                    yield row._replace(path=folder.path(row.path))
                else:
                    yield row


def _columns(folder: CorpusFolder, name: str) -> set[str]:
    line = first_line(folder.root, folder.path(name), folder.encoding)
    if name.endswith(".jsonl"):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            return set()
        return set(values) if isinstance(values, dict) else set()
    return {cell.strip() for cell in next(csv.reader([line]), [])}
