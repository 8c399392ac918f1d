"""Reads the fields of a row under any of their names, and keeps account of the names that were used."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from codectok.extras import extra_of, is_missing

# Many rows share a label: it is held in memory once.
REPEATED = ("language", "speaker", "category")
# Fields that tools also write as a number under names other than the first one.
NUMBERED = ("id", "speaker")
LONGEST_SHARED = 256
_CLOCK = re.compile(r"(?:(\d+):)?([0-5]?\d):([0-5]?\d(?:[.,]\d+)?)")  # subtitles have a comma
# Of a dict that stands for audio, as Hugging Face datasets write a column of it; one with other fields is a label, too.
AUDIO_KEYS = frozenset(["path", "bytes", "array", "sampling_rate"])
SPAN_KEYS = ("start", "offset", "begin", "start_time", "end", "stop", "end_time", "channel")


class Fields:
    """The values of a row by field.

    A value that cannot be meant (a list of file names as a path, a number as a language) leaves the field to its next
    name. Under the first name, as in "text", it is an error.

    Args:
        values: by name.
        columns: the names of each field that occur in `values`, in the order of precedence.
    """

    def __init__(self, values: Mapping[str, Any], columns: Mapping[str, tuple[str, ...]]) -> None:
        self._values, self._columns = values, columns
        self._used: set[str] = set()

    def use(self, *names: str) -> None:
        """Leave fields out of `extra`."""
        self._used.update(names)

    def text(self, field: str) -> str | None:
        """A field as text; None if it is missing.

        Raises:
            ValueError: it cannot be used; the message is the end of a sentence.
        """
        problem = ""
        for name in self._columns.get(field, ()):
            value = self._values[name]
            if is_missing(value):
                continue
            kept = isinstance(value, dict) and not value.keys() <= AUDIO_KEYS
            if isinstance(value, dict) and field == "path":
                value = _path_of_audio(value, name)
            if isinstance(value, list) and len(value) == 1 and field == "text":
                value = value[0]
            first = name.casefold().strip() == field
            if isinstance(value, str):
                if not kept:
                    self._used.add(name)
                return checked(value, field, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and (first or field in NUMBERED):
                self._used.add(name)
                return str(value)
            if isinstance(value, list) and field == "text":
                problem = problem or f"its {name} is a list of {len(value)}, not one text"
            elif first:
                problem = problem or f"its {name} is not text"
        if problem:
            raise ValueError(problem)
        return None

    def seconds(self, field: str, lowest: float = -math.inf) -> float | None:
        """A field as seconds, also from its name in milliseconds; None if it is missing.

        Raises:
            ValueError: it is not a time.
        """
        for key, unit in ((field, 1.0), (f"{field}_ms", 1000.0)):
            for name in self._columns.get(key, ()):
                self._used.add(name)
                if not is_missing_number(self._values[name]):
                    return time_of(self._values[name], name, lowest, unit)
        return None

    def extra(self) -> tuple[str | None, tuple[str, ...]]:
        """Fields that were not used, as JSON, and the names of fields that cannot be kept."""
        extra, left_out = extra_of(self._values, self._used)
        return extra if extra is None or len(extra) > LONGEST_SHARED else sys.intern(extra), left_out


def _path_of_audio(value: dict[str, Any], name: str) -> Any:
    """The path in a dict that stands for audio; raises `ValueError` if the dict names a part of the file."""
    path = value.get("path")
    parts = [key for key in SPAN_KEYS if not is_missing(value.get(key))] if isinstance(path, str) else []
    if parts:
        raise ValueError(f"its {name} has {', '.join(parts)} beside the path; write them as fields of the line")
    return path


def is_missing_number(value: object) -> bool:
    """True for a missing value, and for NaN as the text that tables hold."""
    return is_missing(value) or (isinstance(value, str) and value.strip().lower() == "nan")


def checked(value: str, field: str, name: str) -> str:
    """Text that can be written; raises `ValueError` for half a character and for NUL."""
    if "\0" in value:
        raise ValueError(
            "its path cannot be a path of a file" if field == "path" else f"its {name} has a NUL character"
        )
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape" if field == "path" else "strict")
        except UnicodeEncodeError:
            raise ValueError(f"its {name} is not valid text") from None
    return sys.intern(value.strip()) if field in REPEATED else value


def time_of(value: Any, name: str, lowest: float = -math.inf, unit: float = 1.0) -> float:
    """A value as seconds; it counts in `unit` to the second, or is a clock time such as 1:02:03.5.

    Raises:
        ValueError: it is not a time, or below `lowest`.
    """
    clock = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    try:
        if clock is not None:
            hours, minutes, seconds = clock.groups()
            time = 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
        else:
            # Python reads 1_0 as 10.
            wrong = isinstance(value, bool) or (isinstance(value, str) and "_" in value)
            time = math.nan if wrong else float(value) / unit
    except (TypeError, ValueError, OverflowError):
        time = math.nan
    if not math.isfinite(time):
        raise ValueError(f"its {name} is not a number of seconds")
    if time < lowest:
        raise ValueError(f"its {name} ({time:g} s) is below {lowest:g}")
    return time
