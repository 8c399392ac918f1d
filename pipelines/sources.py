"""What a job reads: listing folders, files and tars, and cutting the list into units. No file is opened here."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from codectok.audio.files import is_audio_path
from codectok.errors import InputError
from codectok.names import printable

Kind = Literal["audio", "tar"]

# Bytes of a second of audio in the usual qualities: units are cut before any file is opened.
BYTES_PER_SECOND = {".wav": 88_200, ".aiff": 88_200, ".aif": 88_200, ".flac": 45_000, ".mp3": 16_000, ".opus": 6_000}
OTHER_BYTES_PER_SECOND = 10_000


@dataclass(frozen=True)
class Source:
    """A file to read: `path` relative to `root`, with "/"; `dataset` names the root wherever it lies."""

    dataset: str
    root: str
    path: str
    size: int
    kind: Kind

    @property
    def location(self) -> Path:
        """The file on this machine."""
        return Path(self.root) / self.path

    @property
    def name(self) -> str:
        """Its path as text for tables and messages."""
        return printable(self.path)

    @property
    def estimated_seconds(self) -> float:
        """A guess at its duration from size and suffix."""
        return self.size / BYTES_PER_SECOND.get(PurePosixPath(self.path).suffix.lower(), OTHER_BYTES_PER_SECOND)


@dataclass(frozen=True)
class Listing:
    """All files to read, in order, and how many others were passed over."""

    sources: tuple[Source, ...]
    ignored: int

    @property
    def hash(self) -> str:
        """Changes whenever a file is added, removed, renamed or gets another size; not when a root is moved."""
        lines = [f"{s.dataset}\0{s.path}\0{s.size}\n" for s in self.sources]
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Unit:
    """A share of the work that becomes one output file."""

    number: int
    sources: tuple[Source, ...]


def list_sources(arguments: list[str], kinds: tuple[Kind, ...]) -> Listing:
    """List `arguments`: files, and folders with all below them.

    A folder's name becomes the name of its dataset; `NAME=FOLDER` gives another. Hidden files and the folders in
    which jobs keep their records are left out.

    Raises:
        InputError: an argument that does not exist, two datasets of one name, or nothing to read at all.
    """
    roots: dict[str, Path] = {}
    found: list[Source] = []
    ignored = 0
    for argument in arguments:
        dataset, location = _split_name(argument)
        root = location if location.is_dir() else location.parent
        if roots.setdefault(dataset, root.resolve()) != root.resolve():
            raise InputError(f"Two sources are named {dataset!r}; name one of them, as in other={location}.")
        for path in _walk(location) if location.is_dir() else [location]:
            kind = _kind(path)
            if kind in kinds:
                relative = path.relative_to(root).as_posix()
                # A link that leads nowhere is listed too: its unit will reject it by name.
                size = path.stat().st_size if path.exists() else 0
                found.append(Source(dataset, str(root.resolve()), relative, size, kind))
            else:
                ignored += 1
    sources = sorted(set(found), key=lambda source: (source.dataset, source.path))
    if not sources:
        wanted = " or ".join("tar files" if kind == "tar" else "audio files" for kind in kinds)
        raise InputError(f"There are no {wanted} in {', '.join(arguments)}.")
    return Listing(tuple(sources), ignored)


def check_unit_seconds(unit_seconds: float) -> None:
    """Refuse a size of units that is no positive number."""
    if not 0 < unit_seconds < math.inf:
        raise InputError(f"Files of {unit_seconds:g} s of audio are impossible; give a number of seconds above 0.")


def cut_into_units(sources: tuple[Source, ...], unit_seconds: float) -> list[Unit]:
    """Group neighbours up to an estimated `unit_seconds`; a tar is a unit of its own."""
    check_unit_seconds(unit_seconds)
    groups: list[list[Source]] = []
    filled = 0.0
    for source in sources:
        alone = source.kind == "tar" or (groups and groups[-1][-1].kind == "tar")
        if not groups or alone or filled + source.estimated_seconds > unit_seconds:
            groups.append([])
            filled = 0.0
        groups[-1].append(source)
        filled += source.estimated_seconds
    return [Unit(number, tuple(group)) for number, group in enumerate(groups)]


def _split_name(argument: str) -> tuple[str, Path]:
    path = Path(argument)
    if path.is_dir():
        return path.resolve().name or "root", path
    if path.is_file():
        return path.resolve().parent.name or "root", path
    name, separator, rest = argument.partition("=")
    if separator and name and Path(rest).exists():
        return name, Path(rest)
    raise InputError(f"There is no file or folder {argument}.")


def _walk(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"The folder {error.filename} cannot be listed: {error.strerror}.")

    paths = []
    seen = set()  # a link can lead back up
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(parent).resolve()
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "_codectok")
        paths += [Path(parent) / name for name in names if not name.startswith(".")]
    return [path for path in paths if path.is_file() or path.is_symlink()]


def _kind(path: Path) -> Kind | None:
    if is_audio_path(path):
        return "audio"
    return "tar" if path.suffix == ".tar" else None
