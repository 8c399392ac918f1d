"""Options of a job that say how its sources are read: plans store them, and sources of units have them as fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

# Options of jobs that say how sources are read, by the field of `Source` that holds them.
READING_OPTIONS = {
    "encoding": "text_encoding",
    "audio_column": "audio_column",
    "max_file_bytes": "max_file_bytes",
}


def reading_options(**fields: str | int | None) -> dict[str, JsonValue]:
    """Options of a job for the `READING_OPTIONS` that are set; without any, plans stay as before these existed."""
    return {READING_OPTIONS[field]: value for field, value in fields.items() if value is not None}


def reading_fields(options: Mapping[str, JsonValue]) -> dict[str, Any]:
    """Fields of `Source` that the options of a job set."""
    found = {field: options.get(option) for field, option in READING_OPTIONS.items()}
    return {field: value for field, value in found.items() if isinstance(value, str | int)}
