"""Finds the layout of a file by its first bytes."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import BinaryIO

from .aiff import layout_of_aiff
from .au import layout_of_au
from .caf import layout_of_caf
from .layout import Damage, Layout, Stream
from .mp3 import layout_of_mp3
from .others import layout_of_avr, layout_of_svx, layout_of_wve
from .riff import layout_of_riff
from .sphere import layout_of_sphere
from .view import StreamView
from .voc import layout_of_voc
from .w64 import layout_of_w64

FORMATS = (
    layout_of_riff,
    layout_of_mp3,
    layout_of_aiff,
    layout_of_au,
    layout_of_caf,
    layout_of_w64,
    layout_of_voc,
    layout_of_sphere,
    layout_of_svx,
    layout_of_avr,
    layout_of_wve,
)
"""One function per family of formats; each returns None for other files, and may leave the file at any position."""

MAX_FILES = 100_000  # that are joined to one, so that a layout stays small


def layout_of(file: BinaryIO) -> Layout | None:
    """Layout of an audio file; None if its format is not known here, so that only its decoder can tell.

    Files that are joined to one become a layout with the streams of all.
    """
    layout = _layout_of_first(file)
    if layout is None or layout.next_file is None:
        return layout
    size = file.seek(0, os.SEEK_END)
    streams, unused_bytes, start = [*layout.streams], layout.unused_bytes, layout.next_file
    for _ in range(MAX_FILES):
        rest = io.BufferedReader(StreamView(file, Stream(start, size)))
        following = _layout_of_first(rest) or Layout("", (Stream(0, size - start),))
        streams += [stream.shifted(start) for stream in following.streams]
        unused_bytes += following.unused_bytes
        if following.next_file is None:
            return replace(
                layout, streams=tuple(streams), damage=following.damage, unused_bytes=unused_bytes, next_file=None
            )
        start += following.next_file
    damage = Damage(f"is joined from more than {MAX_FILES:,} files; split it", None, "unsupported")
    return replace(layout, streams=tuple(streams), damage=damage, unused_bytes=unused_bytes, next_file=None)


def _layout_of_first(file: BinaryIO) -> Layout | None:
    for layout_of_format in FORMATS:
        file.seek(0)
        layout = layout_of_format(file)
        if layout is not None:
            return layout
    return None
