"""Parts of the input that are not used: counted by kind and name, with an example of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from codectok.audio.notes import DecodingNotes
from codectok.audio.sound import SoundOptions
from codectok.config import StrictModel
from codectok.names import shortened, writable

from .kinds import suffix_of

NAME_LENGTH = 1024

UnusedKind = Literal[
    "ignored_files",
    "trailing_bytes",
    "columns",
    "sidecars",
    "members",
    "supervisions",
    "audio_tracks",
    "mixed_channels",
    "cancelled",
    "loud_samples",
    "unmarked_ends",
    "truncated_tokens",
]
TITLES: dict[UnusedKind, str] = {
    "ignored_files": "files without audio",
    "trailing_bytes": "bytes behind the audio",
    "columns": "columns and fields",
    "sidecars": "files beside the audio",
    "members": "members of tars",
    "supervisions": "supervisions",
    "audio_tracks": "audio tracks",
    "mixed_channels": "recordings mixed to one channel",
    "cancelled": "recordings with cancelled channels",
    "loud_samples": "samples beyond full scale",
    "unmarked_ends": "recordings without an end mark",
    "truncated_tokens": "tokens of truncated documents",
}


@dataclass(frozen=True, slots=True)
class Unused:
    """A part of the input that is not used.

    Attributes:
        kind: kind of the part.
        name: suffix of a file, name of a column, or another name that equal parts share.
        count: number of parts, or bytes.
        example: where one of them is.
    """

    kind: UnusedKind
    name: str
    count: int = 1
    example: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "example"):  # names in hostile files may be long, or halves of characters
            object.__setattr__(self, field, writable(shortened(getattr(self, field), NAME_LENGTH)))


class UnusedEntry(StrictModel):
    """Number of unused parts of one name, and the place of the first."""

    count: int
    example: str = ""


def unused_sound(notes: DecodingNotes, sound: SoundOptions, name: str) -> Iterator[Unused]:
    """Yield the parts of the audio file `name` that decoding did not use, or changed."""
    suffix = suffix_of(name)
    if notes.unused_bytes:
        yield Unused("trailing_bytes", suffix, notes.unused_bytes, name)
    if notes.unmarked_ends:
        yield Unused("unmarked_ends", suffix, notes.unmarked_ends, name)
    if notes.other_tracks:
        yield Unused("audio_tracks", suffix, notes.other_tracks, name)
    if notes.mixed_channels:
        yield Unused("mixed_channels", f"{notes.mixed_channels} channels", 1, name)
    if notes.cancelled and sound.cancelled == "first":
        yield Unused("cancelled", f"{notes.mixed_channels} channels", 1, name)
    if notes.loud_samples:
        yield Unused("loud_samples", suffix, notes.loud_samples, name)


UnusedCounts = dict[UnusedKind, dict[str, UnusedEntry]]
"""Unused parts by kind and name."""


def add_unused(counts: UnusedCounts, unused: Unused) -> None:
    """Add a part to `counts`; the first example stays."""
    names = counts.setdefault(unused.kind, {})
    known = names.get(unused.name)
    example = unused.example if known is None or not known.example else known.example
    names[unused.name] = UnusedEntry(count=unused.count + (known.count if known else 0), example=example)


def unused_rows(counts: Mapping[UnusedKind, Mapping[str, UnusedEntry]]) -> list[tuple[str, str, str, str]]:
    """Part, name, number and example of all unused parts, for a table."""
    return [
        (TITLES[kind], name, f"{entry.count:,}", entry.example)
        for kind, names in counts.items()
        for name, entry in names.items()
    ]


def sum_unused(several: Iterable[Mapping[UnusedKind, Mapping[str, UnusedEntry]]]) -> UnusedCounts:
    """Add counts in their order; kinds and names are sorted in the result."""
    total: UnusedCounts = {}
    for counts in several:
        for kind, names in counts.items():
            for name, entry in names.items():
                add_unused(total, Unused(kind, name, entry.count, entry.example))
    return {kind: dict(sorted(total[kind].items())) for kind in TITLES if kind in total}


def sum_entries(several: Iterable[Mapping[str, UnusedEntry]]) -> dict[str, UnusedEntry]:
    """Add entries of the same name, in their order; the first example stays, and names are sorted in the result."""
    total: dict[str, UnusedEntry] = {}
    for entries in several:
        for name, entry in entries.items():
            known = total.get(name, UnusedEntry(count=0))
            total[name] = UnusedEntry(count=known.count + entry.count, example=known.example or entry.example)
    return dict(sorted(total.items()))
