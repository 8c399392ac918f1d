"""A row of a manifest, parsed from the fields that other tools write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from codectok.extras import with_extra
from codectok.sources.labels import NAMES, TEXT_FIELDS, fields_of

from .supervisions import parse_supervisions
from .values import EMPTY, TIMES


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


def parse_row(values: dict[str, Any], leave_out: Callable[[str], None] | None = None) -> ManifestRow:
    """Parse a line; raises `ValueError` with the problem, as the end of a sentence.

    Args:
        values: by name, under any of the names in `NAMES`.
        leave_out: receives the names of fields that cannot be kept.
    """
    fields = fields_of(values)
    path = fields.text("path")
    if not path:
        raise ValueError(f"it has no path ({', '.join(NAMES['path'][:4])} or the like){_advice(values)}")
    start, end, duration = (fields.seconds(name, lowest=0.0) for name in TIMES)
    if end is None and duration is not None:
        end = (start or 0.0) + duration
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"its end ({end:g} s) is not after its start ({start or 0.0:g} s)")
    known: dict[str, Any] = {name: fields.text(name) for name in TEXT_FIELDS}
    fields.use("supervisions")
    extra, left_out = fields.extra()
    if values.get("supervisions") not in EMPTY:
        found = parse_supervisions(values["supervisions"], start or 0.0)
        known["supervisions"] = found.supervisions
        extra, left_out = with_extra(extra, found.extra), (*left_out, *found.left_out)
        for name, value in found.words.items():
            known[name] = known[name] or value
    if leave_out is not None:
        for name in left_out:
            leave_out(name)
    return ManifestRow(path, start, end, **known, extra=extra)


def _advice(values: dict[str, Any]) -> str:
    """Where the rows of a line without a path may be; "" if it holds no other objects."""
    inner = [name for name, value in values.items() if value and _holds_objects(value)]
    return f", but other objects in its {inner[0]!r}; write each of them as a line" if inner else ""


def _holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and isinstance(value[0], dict))
