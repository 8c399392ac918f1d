"""What a job reads: one file, or one span of a file, and what is known of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import RootModel

from codectok.audio.files import is_audio_path
from codectok.audio.spans import Labels, Span
from codectok.config import StrictModel
from codectok.errors import AudioError
from codectok.names import printable
from codectok.storage import is_url, open_file_system

# "unknown": a file whose name says nothing; its unit opens it, and passes it over if it is no audio.
Kind = Literal["audio", "tar", "parquet", "lines", "unknown"]
CONTAINERS: frozenset[Kind] = frozenset(["tar", "parquet", "lines"])
LINES_SUFFIX = ".jsonl"
# What a row of a manifest can say of a file.
ROW_FIELDS = ("start", "end", "id", "text", "language", "speaker", "category", "parts")

# What the clients of stores call the time of a file's last change.
TIMES = ("LastModified", "last_modified", "mtime", "updated")

# Bytes of a second of audio in the usual qualities: units are cut before any file is opened.
BYTES_PER_SECOND = {
    ".wav": 88_200,
    ".aiff": 88_200,
    ".aif": 88_200,
    ".flac": 45_000,
    ".mp3": 16_000,
    ".opus": 6_000,
    ".tar": 30_000,
    ".parquet": 20_000,
}
OTHER_BYTES_PER_SECOND = 10_000

# Files that stand beside audio and are none: passed over without being opened.
_OTHER_NAMES = """
    txt md rst html htm pdf doc docx rtf tex json csv tsv xml yaml yml toml ini cfg log srt vtt lab textgrid trn
    ctm rttm phn wrd lrc mid midi cue m3u m3u8 pls nfo sfv jpg jpeg png gif bmp svg webp tif tiff ico py pyc sh c h cpp
    js ipynb lua pl rb java npy npz pt pth bin ckpt safetensors pkl h5 hdf5 arrow feather db sqlite lock md5
    sha1 sha256 torrent zip gz bz2 xz 7z rar zst
"""
OTHER_SUFFIXES = frozenset(f".{name}" for name in _OTHER_NAMES.split())


class Part(StrictModel):
    """Words that are spoken from `start` to `end`, in seconds of the file."""

    start: float
    end: float
    text: str | None = None
    language: str | None = None
    speaker: str | None = None


class Parts(RootModel[tuple[Part, ...]]):
    """All parts of a span, in order."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or the span of it that a manifest names.

    Attributes:
        dataset: names the root wherever it lies.
        root: folder or URL.
        path: relative to the root, with "/"; or an absolute path or URL, where a manifest gives one.
        size: bytes when it was listed; None where nobody looked.
        modified: nanoseconds since 1970 when it was listed; None where nobody knows.
        kind: what the name promises.
        start, end: of the span in seconds; None for the file's own ends.
        id: the manifest's name of it.
        parts: JSON of `Parts`: when which words are spoken, in seconds of the file.
        first_byte, last_byte: of a tar or Parquet file only what begins in this range; None for all of it.
        first_clip, last_clip: of what is then left only the clips from this number to before that.
    """

    dataset: str
    root: str
    path: str
    kind: Kind
    size: int | None = None
    modified: int | None = None
    start: float | None = None
    end: float | None = None
    id: str | None = None
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    category: str | None = None
    parts: str | None = None
    first_byte: int | None = None
    last_byte: int | None = None
    first_clip: int = 0
    last_clip: int | None = None

    def same_file(self, other: Source) -> bool:
        """Whether `other` is a span or a range of the same file."""
        return (self.dataset, self.path) == (other.dataset, other.path)

    def holds(self, other: Source) -> bool:
        """Whether `other` is this source, or some clips of it."""
        end = self.last_clip
        within = end is None or (other.last_clip is not None and other.last_clip <= end)
        same = replace(other, first_clip=self.first_clip, last_clip=end) == self
        return same and self.first_clip <= other.first_clip and within

    def without(self, clips: Source) -> list[Source]:
        """What is left when `clips`, which it holds, are left out."""
        rest = []
        if clips.first_clip > self.first_clip:
            rest.append(replace(self, last_clip=clips.first_clip))
        if clips.last_clip is not None and clips.last_clip != self.last_clip:
            rest.append(replace(self, first_clip=clips.last_clip))
        return rest

    @property
    def name(self) -> str:
        """Its path as text for tables and messages."""
        return printable(self.path)

    @property
    def url(self) -> str | None:
        """Its address, if it is no file of this machine."""
        if is_url(self.path):
            return self.path
        return f"{self.root.rstrip('/')}/{self.path}" if is_url(self.root) else None

    @property
    def location(self) -> Path:
        """The file on this machine."""
        return Path(self.root) / self.path

    @property
    def where(self) -> str:
        """Its full path or address, for messages."""
        return self.url or printable(self.location)

    @property
    def span(self) -> Span | None:
        """What a manifest says of it; None for a file that was found in a folder."""
        labels = Labels(self.language, self.speaker, self.category)
        parts = Parts.model_validate_json(self.parts).root if self.parts else ()
        found = Span(
            self.start or 0.0,
            self.end,
            self.id,
            self.text,
            labels,
            tuple(Span(p.start, p.end, None, p.text, Labels(p.language, p.speaker, self.category)) for p in parts),
        )
        return None if found == Span() else found

    @property
    def key_path(self) -> str:
        """What tells its samples from others of the dataset: its path, and which row of a manifest names it."""
        row = row_digest(row_of(self))
        return f"{self.path}#{row}" if row else self.path

    def audio(self) -> Path | bytes:
        """The file, or the bytes of one that lies elsewhere.

        Raises:
            AudioError: it has changed since it was listed, or cannot be fetched ("unreadable").
        """
        url = self.url
        if url is None:
            self.check_unchanged()
            return self.location
        files, path = open_file_system(url)
        try:
            data = files.cat_file(path)
        except (FileNotFoundError, PermissionError) as error:
            # Anything else may pass, and is left to whoever tries the unit again.
            raise AudioError(f"{url} cannot be fetched: {error}.", "unreadable") from None
        self._check(len(data), None)
        return data

    def check_unchanged(self) -> None:
        """Compare size and time with those of the listing; `AudioError` ("unreadable") where they differ."""
        if self.url is None:
            try:
                found = self.location.stat()
            except OSError:
                return  # whoever opens it says what is wrong
            self._check(found.st_size, found.st_mtime_ns)
        else:
            files, path = open_file_system(self.url)
            files.invalidate_cache()  # it may remember the listing
            self._check(*size_and_time(files.info(path)))

    def _check(self, size: int | None, modified: int | None) -> None:
        if None not in (self.size, size) and size != self.size:
            raise AudioError(
                f"{self.where} has changed since the job was planned: it had {self.size} bytes and has {size}.",
                "unreadable",
            )
        if None not in (self.modified, modified) and modified != self.modified:
            raise AudioError(f"{self.where} has changed since the job was planned.", "unreadable")


def size_and_time(info: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Bytes, and nanoseconds since 1970, as a store gives them; None for what it does not say."""
    time = next((info[name] for name in TIMES if info.get(name) is not None), None)
    if isinstance(time, datetime):
        time = time.timestamp()
    # Stores give a file's own time in whole seconds, and in a listing more exactly.
    return info.get("size"), int(time) * 1_000_000_000 if isinstance(time, int | float) else None


def row_of(described: object) -> list[Any]:
    """What a row of a manifest says: the `ROW_FIELDS` of a source, or of the row itself."""
    return [getattr(described, name) for name in ROW_FIELDS]


def row_digest(values: Sequence[object]) -> str:
    """Tells rows of manifests that name one file apart, from their `ROW_FIELDS`; "" where they say nothing.

    Rows may overlap, and an id or a text may stand in several, so that only all of it together tells them apart.
    """
    start, *others = values
    described = [start or None, *others]
    if not any(value is not None for value in described):
        return ""
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def kind_of(name: str) -> Kind | None:
    """What a file's name promises; None for what is known to be no audio."""
    if is_audio_path(name):
        return "audio"
    container = container_kind(name)
    if container is not None:
        return container
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == LINES_SUFFIX:
        return "lines"
    return None if suffix in OTHER_SUFFIXES else "unknown"


def container_kind(name: str) -> Kind | None:
    """Which container a file's name promises, if any."""
    lowered = name.lower()
    if lowered.endswith(".parquet"):
        return "parquet"
    return "tar" if lowered.endswith((".tar", ".tar.gz", ".tgz")) else None


def estimated_seconds(path: str, size: int | None, start: float | None = None, end: float | None = None) -> float:
    """A guess at the duration of a source, without opening it."""
    if end is not None:
        return max(0.0, end - (start or 0.0))
    suffix = PurePosixPath(path).suffix.lower()
    return (size or 0) / BYTES_PER_SECOND.get(suffix, OTHER_BYTES_PER_SECOND)
