"""Further labels of a clip, as a JSON object: fields that codectok has no name for, kept for the user."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

# Of one clip, in bytes of JSON: `extra` is for labels, not for features or images.
MAX_EXTRA_BYTES = 1 << 16
MAX_DEPTH = 32  # of lists and objects in one another: what reads `extra` may stop at some hundred


def is_missing(value: object) -> bool:
    """True for None, NaN and blank text: a cell without content."""
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None or (isinstance(value, float) and math.isnan(value))


def extra_of(values: Mapping[str, Any], known: Collection[str] = ()) -> tuple[str | None, tuple[str, ...]]:
    """The fields of `values` that are not in `known`, as a JSON object with sorted keys, and the names of the rest.

    Missing values are not kept. Fields in `custom`, where lhotse puts the user's, stand beside the others. Bytes,
    values that JSON cannot hold, that are nested deeper than `MAX_DEPTH`, or for which `MAX_EXTRA_BYTES` leaves no
    room, are left out.

    Returns:
        The JSON, None without any field, and the names of the fields that were left out.
    """
    items: list[str] = []
    left_out: list[str] = []
    room = MAX_EXTRA_BYTES - 2
    rest = _flat({name: value for name, value in values.items() if name not in known})
    for name in sorted(rest):
        value = rest[name]
        if is_missing(value):
            continue
        if is_stored(value):
            left_out.append(name)
            continue
        try:
            item = f"{_dumped(name)}: {_dumped(value)}"
            size = len(item.encode()) + 2
        except (TypeError, ValueError, RecursionError):  # UnicodeEncodeError, for half a character, is a ValueError
            left_out.append(name)
            continue
        if size > room or is_deep(value, MAX_DEPTH - 1):
            left_out.append(name)
            continue
        room -= size
        items.append(item)
    return f"{{{', '.join(items)}}}" if items else None, tuple(left_out)


def is_stored(value: object) -> bool:
    """True for what lhotse stores elsewhere, such as an array of features, and for infinite numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return True
    return isinstance(value, dict) and bool({"storage_type", "sources", "array", "storage_path"} & value.keys())


def is_deep(value: object, depth: int = MAX_DEPTH) -> bool:
    """True if lists and objects are nested deeper than `depth`."""
    if not isinstance(value, dict | list | tuple):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(is_deep(one, depth - 1) for one in inner)


def merged_extra(extras: Sequence[str | None]) -> str | None:
    """The labels of several clips that become one.

    A label that all of them share stays as it is. Of others the different values become a list, in the order of the
    clips, with null if a clip lacks the label.
    """
    different = list(dict.fromkeys(extras))
    if len(different) <= 1:
        return different[0] if different else None
    objects: list[dict[str, Any]] = [json.loads(extra) if extra else {} for extra in different]
    merged: dict[str, Any] = {}
    for name in sorted({name for one in objects for name in one}):
        distinct = {_dumped(one.get(name)): one.get(name) for one in objects}
        merged[name] = list(distinct.values()) if len(distinct) > 1 else next(iter(distinct.values()))
    return _dumped(merged)


def with_extra(extra: str | None, more: str | None) -> str | None:
    """Add the labels in `more` to `extra`, whose own labels stay."""
    if more is None or extra is None:
        return more if extra is None else extra
    return _dumped({**json.loads(more), **json.loads(extra)})


def without_extra(extra: str | None, parts: Sequence[str | None]) -> str | None:
    """The labels in `extra` that do not come from merging those of `parts`."""
    merged = merged_extra(parts)
    if extra is None or merged is None:
        return extra
    of_parts = json.loads(merged)
    own = {name: value for name, value in json.loads(extra).items() if name not in of_parts or of_parts[name] != value}
    return _dumped(own) if own else None


def labels_in(extra: str | None, names: Collection[str]) -> dict[str, str | None]:
    """The labels with these names as text; None for missing ones."""
    labels: dict[str, Any] = json.loads(extra) if extra and names else {}
    return {name: text_of_label(labels.get(name)) for name in names}


def text_of_label(value: object) -> str | None:
    """A label as text: strings as they are, None for missing ones, others as JSON."""
    if is_missing(value):
        return None
    try:
        return value if isinstance(value, str) else _dumped(value)
    except (TypeError, ValueError):
        return None


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with the fields of `custom` beside the others; fields whose names are taken stay in it."""
    custom = values.get("custom")
    if not isinstance(custom, dict):
        return values
    rest = {name: value for name, value in values.items() if name != "custom"}
    taken = {name: value for name, value in custom.items() if name in rest}
    return {**custom, **rest, **({"custom": taken} if taken else {})}


def _dumped(value: object) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, sort_keys=True, allow_nan=False)


def _plain(value: object) -> object:
    """Types of Parquet columns that JSON lacks."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
