"""A source: a file, or a span of one, with its size, text and labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import RootModel

from codectok.audio.spans import Labels, Span
from codectok.config import StrictModel
from codectok.errors import AudioError, InputError
from codectok.names import printable
from codectok.reading import reading
from codectok.sources.stores.files import fetch, info_of
from codectok.sources.stores.web import too_large
from codectok.storage import is_url

from .contents import content_in_store, content_of_file
from .kinds import Kind

# Fields of a source that a row of a manifest can set.
ROW_FIELDS = ("start", "end", "id", "text", "language", "speaker", "category", "supervisions")
# Further fields; rows without them have the same digest as before these existed.
LATER_ROW_FIELDS = ("channel", "extra", "problem", "companion")

# Of a file at a URL or a sample of a tar, which are held in memory.
MAX_HELD_BYTES = 1 << 29
MAX_ROW_BYTES = 1 << 28  # of Parquet: Arrow holds a value as a page, as a column and as a copy of it

# Names that clients of stores give to a file's modification time.
TIMES = ("LastModified", "last_modified", "mtime", "updated")


class Supervision(StrictModel):
    """Text that is spoken from `start` to `end`, in seconds of the file."""

    start: float
    end: float
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    extra: str | None = None


class Supervisions(RootModel[tuple[Supervision, ...]]):
    """All supervisions of a span, in order."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or the span of it that a manifest names.

    Attributes:
        dataset: name of the root, independent of its location.
        root: folder or URL.
        path: relative to the root, with "/"; or an absolute path or URL from a manifest.
        kind: by the file's name.
        size: bytes when it was listed; None if unknown.
        modified: nanoseconds since 1970 when it was listed; None if unknown.
        content: identity of its content when it was listed (see `contents`); None if unknown.
        start, end: of the span in seconds; None for the start and end of the file.
        id: name in the manifest.
        text, language, speaker, category: from the manifest.
        supervisions: JSON of `Supervisions`.
        channel: number of the channel, from 0 on; None for all.
        extra: further labels, as a JSON object.
        problem: why the row cannot be used, with its place; such a row becomes a reject. None for a usable row.
        companion: JSON of a `Companion`, the file that describes the samples of a tar; None without one.
        encoding: of texts without a byte-order mark; None for UTF-8.
        first_byte, last_byte: byte range of a container; samples that begin in it are read. None for the whole file.
        first_clip, last_clip: range of the clips that are left then, the last one excluded.
        audio_column: column of a Parquet file that holds the audio; None to find it.
        max_file_bytes: largest file or sample that is read; None for no limit on files of this machine, and
            `MAX_HELD_BYTES` or `MAX_ROW_BYTES` for all that is held in memory.
    """

    dataset: str
    root: str
    path: str
    kind: Kind
    size: int | None = None
    modified: int | None = None
    content: int | None = field(default=None, compare=False)
    start: float | None = None
    end: float | None = None
    id: str | None = None
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    category: str | None = None
    supervisions: str | None = None
    channel: int | None = None
    extra: str | None = None
    problem: str | None = None
    companion: str | None = None
    encoding: str | None = None
    first_byte: int | None = None
    last_byte: int | None = None
    first_clip: int = 0
    last_clip: int | None = None
    audio_column: str | None = None
    max_file_bytes: int | None = None

    def same_file(self, other: Source) -> bool:
        """True if `other` is a span or a range of the same file."""
        return (self.dataset, self.path) == (other.dataset, other.path)

    def holds(self, other: Source) -> bool:
        """True if `other` is this source, or some clips of it."""
        end = self.last_clip
        within = end is None or (other.last_clip is not None and other.last_clip <= end)
        same = replace(other, first_clip=self.first_clip, last_clip=end) == self
        return same and self.first_clip <= other.first_clip and within

    def without(self, clips: Source) -> list[Source]:
        """This source without `clips`, some clips of it."""
        rest = []
        if clips.first_clip > self.first_clip:
            rest.append(replace(self, last_clip=clips.first_clip))
        if clips.last_clip is not None and clips.last_clip != self.last_clip:
            rest.append(replace(self, first_clip=clips.last_clip))
        return rest

    @property
    def max_held_bytes(self) -> int:
        """Largest file at a URL, or sample of a tar, that is read."""
        return MAX_HELD_BYTES if self.max_file_bytes is None else self.max_file_bytes

    @property
    def max_row_bytes(self) -> int:
        """Largest row of Parquet that is read."""
        return MAX_ROW_BYTES if self.max_file_bytes is None else self.max_file_bytes

    @property
    def name(self) -> str:
        """Path as text, for tables and messages."""
        return printable(self.path)

    @property
    def url(self) -> str | None:
        """Address, or None if the file is on this machine."""
        if is_url(self.path):
            return self.path
        return f"{self.root.rstrip('/')}/{self.path}" if is_url(self.root) else None

    @property
    def location(self) -> Path:
        """The file on this machine."""
        return Path(self.root) / self.path

    @property
    def where(self) -> str:
        """Full path or address, for messages."""
        return self.url or printable(self.location)

    @property
    def span(self) -> Span:
        """The part of the file that is meant, with its text and labels."""
        labels = Labels(self.language, self.speaker, self.category)
        supervisions = Supervisions.model_validate_json(self.supervisions).root if self.supervisions else ()
        inner = (
            Span(
                one.start,
                one.end,
                text=one.text,
                labels=Labels(one.language, one.speaker, self.category),
                extra=one.extra,
            )
            for one in supervisions
        )
        return Span(
            self.start or 0.0,
            self.end,
            self.id,
            self.text,
            labels,
            tuple(inner),
            channel=self.channel,
            extra=self.extra,
        )

    @property
    def key_path(self) -> str:
        """Identifies the source within its dataset: its path, and the row of a manifest that names it."""
        row = row_digest(row_of(self))
        return f"{self.path}#{row}" if row else self.path

    def audio(self) -> Path | bytes:
        """The path of a file on this machine, or the bytes of a remote file.

        Raises:
            AudioError: the file has "changed" since it was listed, or cannot be fetched ("unreadable", or
                "unreachable" if this may pass), its row in a manifest cannot be used ("invalid_row"), or it is
                "too_large".
        """
        if self.problem is not None:
            raise AudioError(self.problem, "invalid_row")
        url = self.url
        with reading(self.where):
            if url is None:
                self.check_unchanged()
                self._check_size()
                return self.location
            data = fetch(url, self.max_held_bytes, self.size)
            self._check(len(data), None, lambda: None)
            return data

    def _check_size(self) -> None:
        if self.max_file_bytes is None:
            return
        size = self.location.stat().st_size
        if size > self.max_file_bytes:
            raise too_large(self.where, size, self.max_file_bytes)

    def check_unchanged(self) -> None:
        """Compare size and time with the listing, and the content if only the time differs, as in a copy.

        Raises:
            AudioError: the file differs, or is not there any more ("changed").
        """
        if self.url is None:
            try:
                found = self.location.stat()
            except FileNotFoundError:
                if self.size is None:
                    return  # opening it will raise a better error
                message = f"{self.where} was there when the job was planned, and is missing now."
                raise AudioError(message, "changed") from None
            except OSError:
                return
            self._check(found.st_size, found.st_mtime_ns, lambda: content_of_file(self.location, found.st_size))
        else:
            info = info_of(self.url)
            self._check(*size_and_time(info), lambda: content_in_store(info))

    def _check(self, size: int | None, modified: int | None, content: Callable[[], int | None]) -> None:
        if None not in (self.size, size) and size != self.size:
            raise AudioError(
                f"{self.where} has changed since the job was planned: it had {self.size} bytes and has {size}.",
                "changed",
            )
        if None not in (self.modified, modified) and modified != self.modified:
            if self.content is not None and self.size is not None and content() == self.content:
                return
            raise AudioError(f"{self.where} has changed since the job was planned.", "changed")


def check_max_bytes(value: int | None) -> None:
    """Raise an `InputError` if `value` cannot be the largest size of a file."""
    if value is not None and value < 1:
        raise InputError(f"The largest file must have a number of bytes above 0, not {value}.")


def size_and_time(info: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Bytes, and nanoseconds since 1970, of a file in a store; None if the store does not report them."""
    time = next((info[name] for name in TIMES if info.get(name) is not None), None)
    if isinstance(time, datetime):
        time = time.timestamp()
    # For one file stores report whole seconds, in a listing fractions.
    return info.get("size"), int(time) * 1_000_000_000 if isinstance(time, int | float) else None


def row_of(described: object) -> list[Any]:
    """The fields that a row of a manifest sets, of a source or of such a row.

    Later fields that are empty are left out at the end, so that hashes of rows without them stay the same.
    """
    values = [getattr(described, name) for name in (*ROW_FIELDS, *LATER_ROW_FIELDS)]
    while len(values) > len(ROW_FIELDS) and values[-1] is None:
        values.pop()
    return values


def row_digest(values: Sequence[object]) -> str:
    """Digest of `row_of`, which distinguishes rows of a manifest for the same file; "" if all fields are empty.

    Rows may overlap, and several may have the same id or text, so that all fields are needed.
    """
    start, *others = values
    described = [start or None, *others]
    while len(described) > len(ROW_FIELDS) and described[-1] is None:
        described.pop()
    if not any(value is not None for value in described):
        return ""
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
