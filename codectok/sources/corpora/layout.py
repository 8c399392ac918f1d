"""Protocol of a layout, and the folder in which it is looked for."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from codectok.sources.kinds import kind_of
from codectok.sources.listing.found import FoundFile
from codectok.sources.manifests.read import UnusedField
from codectok.sources.manifests.row import ManifestRow
from codectok.storage import is_url, open_file_system


@dataclass(frozen=True)
class CorpusFolder:
    """A folder of a dataset.

    Attributes:
        root: folder or URL of the dataset.
        prefix: path of this folder below the root, with "/" at its end; "" for the root.
        files: in this folder, by name; empty if the folder was not listed.
        encoding: of texts without a byte-order mark; None for UTF-8.
    """

    root: str
    prefix: str = ""
    files: Mapping[str, FoundFile] = field(default_factory=dict)
    encoding: str | None = None

    def path(self, name: str) -> str:
        """Path below the root of a file or folder that is named relative to this folder; others stay."""
        if is_url(name) or name.startswith("/"):
            return name
        return posixpath.normpath(self.prefix + name)

    def exists(self, name: str) -> bool:
        """True if there is a file or folder `name`, relative to this folder."""
        if name in self.files:
            return True
        path = self.path(name)
        if is_url(path) or is_url(self.root):
            files, place = open_file_system(path if is_url(path) else f"{self.root.rstrip('/')}/{path}")
            return bool(files.exists(place))
        return os.path.exists(os.path.join(self.root, path))  # noqa: PTH110, PTH118  # a `Path` for each takes longer

    def size(self, name: str) -> int | None:
        """Bytes of the file `name`; None if unknown."""
        if name in self.files:
            return self.files[name].size
        path = self.path(name)
        if is_url(self.root):
            files, place = open_file_system(f"{self.root.rstrip('/')}/{path}")
            found: int | None = files.info(place).get("size")
            return found
        try:
            return os.stat(os.path.join(self.root, path)).st_size  # noqa: PTH116, PTH118  # as above
        except OSError:
            return None

    def audio_stems(self) -> dict[str, list[str]]:
        """Names of the audio files in this folder, by their names without the suffix."""
        stems: dict[str, list[str]] = {}
        for name in self.files:
            if kind_of(name) == "audio":
                stems.setdefault(name.rpartition(".")[0], []).append(name)
        return stems


@dataclass(frozen=True)
class Recognised:
    """Files in a folder that describe audio in the same way.

    Attributes:
        layout: that reads them.
        names: of the files that are read.
        left: names of files that the layout knows and does not read.
    """

    layout: Layout
    names: Sequence[str]
    left: Sequence[str] = ()


class Layout(Protocol):
    """A way in which a corpus names its audio, text and labels."""

    @property
    def name(self) -> str:
        """Name of the layout, for the summary."""

    def find(self, folder: CorpusFolder, names: Sequence[str]) -> Recognised | None:
        """Choose from `names`, files in `folder`, the ones that are of this layout; None if there are none."""

    def rows(self, folder: CorpusFolder, names: Sequence[str]) -> Iterator[ManifestRow | UnusedField]:
        """Yield the rows of the files `names`, with paths relative to the root."""
