"""Common Voice: `train.tsv` and the like, with names of files in `clips/`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from codectok.sources.manifests.read import UnusedField, read_rows_and_unused, renaming
from codectok.sources.manifests.row import ManifestRow
from codectok.sources.manifests.text_files import first_line

from .layout import CorpusFolder, Recognised

CLIPS = "clips"
COLUMNS = {"client_id", "path", "sentence"}
RENAMED = {"sentence": "text", "client_id": "speaker", "locale": "language"}


@dataclass(frozen=True)
class CommonVoice:
    """Tables of clips. Several of them overlap, or hold clips that were voted down, so that one must be named."""

    name: str = "Common Voice"

    def find(self, folder: CorpusFolder, names: Sequence[str]) -> Recognised | None:
        """The one table of clips; several are not read."""
        tables = [name for name in names if name.endswith(".tsv")]
        if not tables or not folder.exists(CLIPS):
            return None
        tables = [name for name in tables if _columns(folder, name) >= COLUMNS]
        if not tables:
            return None
        return Recognised(self, tables) if len(tables) == 1 else Recognised(self, (), tables)

    def rows(self, folder: CorpusFolder, names: Sequence[str]) -> Iterator[ManifestRow | UnusedField]:
        """Yield a row for each line."""
        for name in names:
            path = folder.path(name)
            for row in read_rows_and_unused(folder.root, path, renaming(RENAMED), folder.encoding):
                if isinstance(row, ManifestRow) and not row.path.startswith(f"{path}#"):
                    yield row._replace(path=folder.path(_in_clips(row.path)))
                else:
                    yield row


def _in_clips(path: str) -> str:
    if "/" not in path:
        path = f"{CLIPS}/{path}"
    return path if PurePosixPath(path).suffix else f"{path}.mp3"  # the first releases left it out


def _columns(folder: CorpusFolder, name: str) -> set[str]:
    return {cell.strip() for cell in first_line(folder.root, folder.path(name), folder.encoding).split("\t")}
