"""Rows of a manifest of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO


def json_rows(file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the lines of `file` with their numbers; raise `ValueError` for a line that is not a JSON object."""
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is not valid JSON ({error.msg})") from None
            except RecursionError:
                raise ValueError(f"line {number} is not valid JSON (it is nested too deeply)") from None
            if not isinstance(values, dict):
                raise ValueError(f"line {number} is not a JSON object")
            yield number, values
