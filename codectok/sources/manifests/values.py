"""Cells of a manifest as text and as times."""

from __future__ import annotations

import math
import sys
from typing import Any

TIMES = ("start", "end", "duration")
LABELS = ("language", "speaker", "category")
EMPTY = (None, "")  # an empty cell of a table counts as missing


def text_of(values: dict[str, Any], name: str) -> str | None:
    """A cell as text; None if it is empty."""
    value = values.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"its {name} is not text")
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape" if name == "path" else "strict")
        except UnicodeEncodeError:
            raise ValueError(f"its {name} is not valid text") from None
    # Many rows share a label: hold it in memory once.
    return sys.intern(value) if name in LABELS else value


def seconds_of(values: dict[str, Any], name: str, lowest: float = -math.inf) -> float | None:
    """A cell as seconds; None if it is empty."""
    value = values.get(name)
    if value is None or value == "":
        return None
    try:
        time = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        time = math.nan
    if not math.isfinite(time):
        raise ValueError(f"its {name} is not a number of seconds")
    if time < lowest:
        raise ValueError(f"its {name} ({time:g} s) is below {lowest:g}")
    return time
