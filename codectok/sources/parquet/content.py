"""Tells audio from other contents by the first bytes of a value."""

from __future__ import annotations

import re

from codectok.audio.files import is_audio_path

# Wave and its relatives, FLAC, Ogg, ID3, AIFF, CAF, W64, AU, AMR, WavPack, Monkey's Audio, ASF, Matroska, MP4.
AUDIO_STARTS = re.compile(
    rb"(RIFF|RIFX|RF64|BW64|FFIR)....WAVE|fLaC|OggS|ID3|FORM....AIF[FC]|caff|riff\x2e\x91\xcf\x11|\.snd|#!AMR|wvpk|MAC "
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|\x1a\x45\xdf\xa3|....ftyp|Creative Voice File",
    re.DOTALL,
)
# Images, documents, archives and arrays.
OTHER_STARTS = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....(?!WAVE)|BM|II\*\x00|MM\x00\*|%PDF|PK\x03\x04|\x1f\x8b|\x93NUMPY|\x80[\x02-\x05]"
    rb"|<|\{",
    re.DOTALL,
)
MPEG_HEADER_BYTES = 4


def is_audio(data: bytes, path: str | None = None) -> bool | None:
    """Return True if `data` begins like audio, False if it begins like another known format, else None.

    The suffix of `path` decides about data that begins like nothing known.
    """
    if AUDIO_STARTS.match(data) or _is_mpeg(data):
        return True
    if OTHER_STARTS.match(data):
        return False
    return True if path and is_audio_path(path) else None


def _is_mpeg(data: bytes) -> bool:
    """Return True if `data` begins with the header of an MPEG audio frame (MP3, AAC in ADTS)."""
    if len(data) < MPEG_HEADER_BYTES or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return False
    version, layer = data[1] >> 3 & 3, data[1] >> 1 & 3
    if layer == 0:  # AAC: its sync word has 12 bits, and 13 sample rates exist
        return data[1] & 0xF0 == 0xF0 and data[2] >> 2 & 15 < 13
    return version != 1 and data[2] >> 4 not in (0, 15) and data[2] >> 2 & 3 != 3
