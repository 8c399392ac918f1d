"""Rows of a manifest of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from .values import ManifestLine


def json_rows(lines: Iterable[str]) -> Iterator[ManifestLine]:
    """Yield the values of `lines` with their numbers; a `ValueError` for a line that is not a JSON object."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, _parse(line)
            except ValueError as error:
                yield number, error


def _parse(line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON ({error.msg})") from None
    except RecursionError:
        raise ValueError("it is not valid JSON (it is nested too deeply)") from None
    except ValueError as error:  # a number with too many digits
        raise ValueError(f"it is not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    return values
