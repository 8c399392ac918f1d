"""A row of a manifest, parsed from the fields that other tools write."""

from __future__ import annotations

from typing import Any, NamedTuple

from .supervisions import parse_supervisions
from .values import EMPTY, LABELS, TIMES, seconds_of, text_of

# Column names of other tools.
SYNONYMS = {
    "path": ("audio_filepath", "audio_path", "file", "wav", "filename"),
    "start": ("offset",),
    "language": ("lang",),
}


class ManifestRow(NamedTuple):
    """A line of a manifest; times in seconds, the path relative to the manifest's folder or absolute."""

    path: str
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


def parse_row(values: dict[str, Any]) -> ManifestRow:
    """Parse a line; raises `ValueError` with the problem, as the end of a sentence."""
    for name, others in SYNONYMS.items():
        if values.get(name) in EMPTY:
            values[name] = next((values[other] for other in others if values.get(other) not in EMPTY), None)
    path = text_of(values, "path")
    if not path:
        raise ValueError("it has no path")
    if "\0" in path:
        raise ValueError("its path cannot be a path of a file")
    start, end, duration = (seconds_of(values, name, lowest=0.0) for name in TIMES)
    if end is None and duration is not None:
        end = (start or 0.0) + duration
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"its end ({end:g} s) is not after its start ({start or 0.0:g} s)")
    known: dict[str, Any] = {name: text_of(values, name) for name in ("id", "text", *LABELS)}
    if values.get("supervisions") in EMPTY:
        return ManifestRow(path, start, end, **known)
    found = parse_supervisions(values["supervisions"], start or 0.0)
    supervisions = found.pop("supervisions", None)
    merged: dict[str, Any] = {name: known[name] or found.get(name) for name in known}
    return ManifestRow(path, start, end, **merged, supervisions=supervisions)
