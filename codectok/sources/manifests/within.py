"""Supervisions that reach beyond the span of their row."""

from __future__ import annotations

import json

from .row import ManifestRow


def within_row(row: ManifestRow) -> ManifestRow:
    """The row with the times of its supervisions cut to its span; their texts stay whole.

    Raises:
        ValueError: a supervision with text lies outside of the span; the message is the end of a sentence.
    """
    if row.supervisions is None:
        return row
    supervisions = json.loads(row.supervisions)
    first, last = row.start or 0.0, float("inf") if row.end is None else row.end
    changed = False
    for one in supervisions:
        start, end = max(first, one["start"]), min(last, one["end"])
        if start > end or (start == end and one["start"] < one["end"]):
            if one.get("text"):
                raise ValueError("one of its supervisions lies outside of its span")
            start = end = min(max(first, one["start"]), last)
        changed = changed or (start, end) != (one["start"], one["end"])
        one["start"], one["end"] = start, end
    if not changed:
        return row
    return row._replace(supervisions=json.dumps(supervisions, ensure_ascii=False, separators=(",", ":")))
