"""Recognizes file formats by their first bytes: for messages, and to find audio under other names."""

from __future__ import annotations

import io

from codectok.audio.framing.mpeg.frames import chain_length, format_at
from codectok.audio.framing.window import Window

HEAD_BYTES = 4096
"""First bytes of a file that `signature_of` looks at."""

# Bytes that a file begins with, or holds at an offset, and the format that they show.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"ID3", "audio with an ID3 tag"),
    (0, b".snd", "AU"),
    (0, b"dns.", "AU"),
    (0, b"caff", "CAF"),
    (0, b"NIST_1A", "NIST SPHERE"),
    (0, b"Creative Voice File", "VOC"),
    (0, b"riff\x2e\x91\xcf\x11", "W64"),
    (0, b"\x64\xa3\x01\x00", "IRCAM"),
    (0, b"\x00\x01\xa3\x64", "IRCAM"),
    (0, b"#!AMR", "AMR"),
    (0, b"MAC ", "Monkey's Audio (APE)"),
    (0, b"wvpk", "WavPack"),
    (0, b"TTA1", "TTA"),
    (0, b"TTA2", "TTA"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"tBaK", "TAK"),
    (0, b"ajkg", "Shorten"),
    (0, b"OFR ", "OptimFROG"),
    (0, b"DSD ", "DSF"),
    (0, b"FRM8", "DSDIFF"),
    (0, b".RMF", "RealMedia"),
    (0, b".ra\xfd", "RealAudio"),
    (0, b"#!SILK_V3", "SILK"),
    (0, b"\x02#!SILK_V3", "SILK"),
    (0, b"FLV\x01", "FLV"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (ASF)"),
    (0, b"\x00\x00\x01\xba", "MPEG program stream"),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "MXF"),
    (0, b"nut/multimedia container", "NUT"),
    (0, b"EA3\x01", "ATRAC"),
    (0, b"ea3\x03", "ATRAC"),
    (0, b"qoaf", "QOA"),
    (4, b"ftyp", "MPEG-4 (M4A, MP4, MOV)"),
    (4, b"moov", "QuickTime"),
    (4, b"mdat", "QuickTime"),
    (4, b"wide", "QuickTime"),
    (4, b"moof", "MPEG-4 (fragment)"),
    (4, b"styp", "MPEG-4 (fragment)"),
    (4, b"sidx", "MPEG-4 (fragment)"),
)
_BEGINNINGS = tuple(magic for offset, magic, _ in _MAGIC if offset == 0)
_BOXES = frozenset(magic for offset, magic, _ in _MAGIC if offset == 4)
# A chunk of a known type with the type of its content behind the size.
_CHUNKS = {
    b"RIFF": {b"WAVE": "WAV", b"AVI ": "AVI", b"RMP3": "WAV", b"XWMA": "xWMA", b"QLCM": "QCP"},
    b"RIFX": {b"WAVE": "WAV"},
    b"RF64": {b"WAVE": "RF64"},
    b"BW64": {b"WAVE": "BW64"},
    b"FORM": {b"AIFF": "AIFF", b"AIFC": "AIFF-C", b"8SVX": "8SVX", b"16SV": "16SV"},
}
_NAMES_OF_OTHERS = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*", b"%PDF", b"PK\x03\x04", b"\x1f\x8b", b"BZh",
    b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd", b"\x7fELF", b"SQLite format", b"\x89HDF", b"PAR1",
    b"\x93NUMPY", b"ARROW1", b"\xca\xfe\xba\xbe", b"\xd0\xcf\x11\xe0",
)  # fmt: skip
_TS_PACKETS = (188, 192, 204)
_AC3_RATES = 3
_ADTS_HEADER = 7
_FRAMES = 3  # that must follow one another where a format has only a short sync word


def signature_of(head: bytes) -> str | None:
    """Name of the audio or video format that `head`, the first `HEAD_BYTES` of a file, shows; None if unknown."""
    contents = _CHUNKS.get(head[:4])
    if contents is not None and head[8:12] in contents:
        return contents[head[8:12]]
    if head.startswith(_BEGINNINGS) or head[4:8] in _BOXES:  # few files come so far
        for offset, magic, name in _MAGIC:
            if head.startswith(magic, offset):
                return name
    if head[:1] == b"\xff":
        if _begins_adts(head):
            return "AAC (ADTS)"
        if _begins_mpeg_audio(head):
            return "MP3"
    if head[:2] == b"\x0b\x77" and len(head) > 5 and head[4] >> 6 < _AC3_RATES:
        return "AC-3"
    if head[:4] in (b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"\x1f\xff\xe8\x00", b"\xff\x1f\x00\xe8"):
        return "DTS"
    for size in _TS_PACKETS:
        first = 4 if size == _TS_PACKETS[1] else 0
        if (
            head[first : first + 1] == b"\x47"
            and len(head) >= 4 * size + first
            and all(head[first + i * size] == 0x47 for i in range(4))
        ):
            return "MPEG transport stream"
    return None


def is_known_other(head: bytes) -> bool:
    """True if the first bytes of a file show text, an image, an archive or another file without sound."""
    return head.startswith(_NAMES_OF_OTHERS) or _is_text(head)


def _is_text(head: bytes) -> bool:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        wide = head[: len(head) // 2 * 2].decode("utf-16", "replace")
        return "\ufffd" not in wide[:-1] and _mostly_printable(wide)
    if b"\0" in head:
        return False
    try:
        return _mostly_printable(head.decode("utf-8"))
    except UnicodeDecodeError as error:
        if error.start >= len(head) - 3 and error.reason == "unexpected end of data":  # cut within a character
            return _mostly_printable(head[: error.start].decode("utf-8"))
        # Text in an older encoding has letters beyond ASCII here and there, and no control characters.
        letters = sum(32 <= byte < 127 or byte in b"\t\n\r\f" for byte in head)
        controls = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
        return controls == 0 and letters > 0.6 * len(head)


def _mostly_printable(text: str) -> bool:
    strange = sum(not character.isprintable() and not character.isspace() for character in text)
    return strange * 50 <= len(text)


def _begins_adts(head: bytes) -> bool:
    """True if frames follow one another at the start of `head`: `_FRAMES` of them, or two up to its end."""
    position = frames = 0
    while frames < _FRAMES and position < len(head):
        length = _adts_length(head[position : position + _ADTS_HEADER])
        if length is None:
            return False
        position += length
        frames += 1
    return frames > 1


def _adts_length(header: bytes) -> int | None:
    if len(header) < _ADTS_HEADER or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return None
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > _ADTS_HEADER else None


def _begins_mpeg_audio(head: bytes) -> bool:
    data = Window(io.BytesIO(head))
    frame_format = format_at(data, 0, free=False)
    return frame_format is not None and chain_length(data, 0, frame_format, _FRAMES) == _FRAMES
