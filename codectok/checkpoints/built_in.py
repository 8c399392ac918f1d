"""Codecs that are part of this package."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "weights"


def built_in_codec(name: str) -> Path | None:
    """Return the folder of the built-in codec `name`, or None if there is no such codec."""
    return FOLDER / name if name in built_in_names() else None


def built_in_names() -> list[str]:
    """Return the names of the built-in codecs."""
    return sorted(entry.name for entry in FOLDER.iterdir() if entry.is_dir())
