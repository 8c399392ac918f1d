"""Cells of a manifest as text and as times."""

from __future__ import annotations

import math
from typing import Any

from codectok.sources.fields import checked, is_missing_number, time_of

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
    return checked(value, name, name)


def seconds_of(values: dict[str, Any], name: str, lowest: float = -math.inf) -> float | None:
    """A cell as seconds; None if it is missing."""
    value = values.get(name)
    return None if is_missing_number(value) else time_of(value, name, lowest)
