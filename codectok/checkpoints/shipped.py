"""Codecs that come with this package."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "weights"


def shipped_codec(name: str) -> Path | None:
    """Folder of the codec `name` of this package; None if there is none of this name."""
    folder = FOLDER / name
    return folder if name in shipped_names() else None


def shipped_names() -> list[str]:
    """Names of the codecs of this package."""
    return sorted(entry.name for entry in FOLDER.iterdir() if entry.is_dir())
