"""Tells audio from other contents by the first bytes of a value."""

from __future__ import annotations

from codectok.audio.files import is_audio_path
from codectok.audio.signatures import HEAD_BYTES, is_known_other, signature_of

# Of images, pickles, markup and JSON: too short, or too rare in files of audio, for `is_known_other`.
OTHER_STARTS = (b"RIFF", b"BM", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"<", b"{")


def is_audio(data: bytes, path: str | None = None) -> bool | None:
    """Return True if `data` begins like audio, False if it begins like another known format, else None.

    The suffix of `path` decides about data that begins like nothing known.
    """
    head = data[:HEAD_BYTES]
    if head and is_known_other(head):  # first, since text may begin with a short signature
        return False
    if signature_of(head) is not None:
        return True
    if head.startswith(OTHER_STARTS):
        return False
    return True if path and is_audio_path(path) else None
