"""Finds the layout of a file by its first bytes."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import BinaryIO

from codectok.audio.framing.chunked.aiff import layout_of_aiff
from codectok.audio.framing.chunked.caf import layout_of_caf
from codectok.audio.framing.chunked.riff import layout_of_riff
from codectok.audio.framing.chunked.w64 import layout_of_w64
from codectok.audio.framing.flac.layout import layout_of_flac
from codectok.audio.framing.mpeg.layout import layout_of_mp3
from codectok.audio.framing.ogg.layout import layout_of_ogg
from codectok.audio.signatures import HEAD_BYTES, signature_of

from .au import layout_of_au
from .containers import layout_of_container
from .layout import Damage, Layout, Stream
from .magic import find_file
from .others import layout_of_avr, layout_of_mat4, layout_of_mat5, layout_of_mpc, layout_of_svx, layout_of_wve
from .sphere import layout_of_sphere
from .view import StreamView
from .voc import layout_of_voc

FORMATS = (
    layout_of_riff,
    layout_of_flac,
    layout_of_ogg,
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
    layout_of_mpc,
    layout_of_mat4,
    layout_of_mat5,
    layout_of_container,
)
"""One function per family of formats; each returns None for other files, and may leave the file at any position."""

MAX_FILES = 100_000  # that are joined to one, so that a layout stays small


def layout_of(file: BinaryIO) -> Layout | None:
    """Layout of an audio file; None if its format is not known here, so that only its decoder can tell.

    Files that are joined to one become a layout with the streams of all.
    """
    layout = _layout_of_first(file)
    size = file.seek(0, os.SEEK_END)
    if layout is not None:
        layout = _with_next_file(file, layout, size)
    if layout is None or layout.next_file is None:
        return layout
    layouts, start = [layout], 0
    for _ in range(MAX_FILES):
        layout = layouts[-1]
        if layout.damage is not None or layout.next_file is None:
            return _joined(layouts)
        start += layout.next_file
        rest = io.BufferedReader(StreamView(file, Stream(start, size)))
        following = _layout_of_first(rest) or Layout("", (Stream(0, size - start),))
        following = _with_next_file(rest, following, size - start)
        n_bytes = size - start if following.next_file is None else following.next_file
        shifted = replace(following, streams=tuple(stream.shifted(start) for stream in following.streams))
        layouts.append(replace(shifted, damage=None) if _is_repeated_header(shifted, n_bytes, layouts) else shifted)
    damage = Damage(f"is joined from more than {MAX_FILES:,} files; split it", None, "unsupported")
    return replace(_joined(layouts), damage=damage)


def _with_next_file(file: BinaryIO, layout: Layout, size: int) -> Layout:
    """Let the layout of a file of another format follow, if one begins behind the last stream."""
    if layout.damage is not None or layout.next_file is not None or not (layout.unused_bytes and layout.streams):
        return layout
    last = layout.streams[-1]
    end = last.end if last.end < size else max(last.start + 1, size - layout.unused_bytes)
    # The first bytes of MPEG-4 are zeros, which may have been taken for padding.
    starts = (start for start in (end, end - 3) if _begins_other_file(file, start, size))
    place = next(starts, None) or find_file(file, end, size)
    if place is None:
        return layout
    streams = (*layout.streams[:-1], replace(last, end=min(last.end, place)))
    return replace(layout, streams=streams, unused_bytes=max(0, layout.unused_bytes - (size - place)), next_file=place)


def _begins_other_file(file: BinaryIO, position: int, size: int) -> bool:
    file.seek(position)
    head = file.read(HEAD_BYTES)
    if head[:3] == b"ID3":  # or a tag of the file before
        return layout_of_mp3(io.BufferedReader(StreamView(file, Stream(position, size)))) is not None
    return signature_of(head) is not None


def _is_repeated_header(layout: Layout, n_bytes: int, before: list[Layout]) -> bool:
    """Return True if a file of `n_bytes` bytes is the final header of the one before it.

    Programs that write to a pipe put it there, since they cannot go back.
    """
    if layout.damage is None or any(stream.n_samples != 0 for stream in layout.streams):
        return False
    previous = next((stream for one in reversed(before) for stream in one.streams if stream.n_samples != 0), None)
    return previous is not None and layout.damage.missing_bytes == previous.end - previous.start - n_bytes


def _joined(layouts: list[Layout]) -> Layout:
    """Join the layouts of files that follow one another."""
    streams = [stream for layout in layouts for stream in layout.streams]
    # A header that was written twice has no samples at first.
    with_samples = tuple(stream for stream in streams if stream.n_samples != 0)
    unused_bytes = sum(layout.unused_bytes for layout in layouts)
    return Layout(
        layouts[0].container,
        with_samples or tuple(streams[:1]),
        layouts[-1].damage,
        unused_bytes,
        unmarked_ends=sum(layout.unmarked_ends for layout in layouts),
    )


def _layout_of_first(file: BinaryIO) -> Layout | None:
    for layout_of_format in FORMATS:
        file.seek(0)
        layout = layout_of_format(file)
        if layout is not None:
            return layout
    return None
