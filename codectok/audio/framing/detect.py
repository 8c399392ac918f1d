"""Finds the layout of a file by its first bytes."""

from __future__ import annotations

from typing import BinaryIO

from .flac import layout_of_flac
from .layout import Layout
from .mp3 import layout_of_mp3
from .ogg import layout_of_ogg

FORMATS = (layout_of_flac, layout_of_ogg, layout_of_mp3)
"""One function per family of formats; each returns None for other files, and may leave the file at any position."""


def layout_of(file: BinaryIO) -> Layout | None:
    """Layout of an audio file; None if its format is not known here, so that only its decoder can tell."""
    for layout_of_format in FORMATS:
        file.seek(0)
        layout = layout_of_format(file)
        if layout is not None:
            return layout
    return None
