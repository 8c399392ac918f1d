"""Frames that hold the length of an MPEG stream instead of audio: Xing, Info and VBRI."""

from __future__ import annotations

from dataclasses import dataclass

from codectok.audio.framing.window import Window

from .frames import HEADER, FrameFormat

XING_MARKS, VBRI_MARK = (b"Xing", b"Info"), b"VBRI"
# Bytes of a frame that may hold everything that is read here.
SPAN = 256
VBRI_PLACE = HEADER + 32
UNKNOWN = 0xFFFF_FFFF
HAS_FRAMES, HAS_BYTES, HAS_TABLE, HAS_QUALITY = 1, 2, 4, 8
TABLE_SIZE = 100
DELAYS_PLACE = 21  # of encoder delay and padding, behind the encoder's name
# Delay of a decoder in samples, which encoders count into the padding.
DECODER_DELAY = 529
LONGEST_PADDING = 0xFFF


@dataclass(frozen=True)
class LengthFrame:
    """A frame with the length of the stream that it begins.

    Attributes:
        start: its offset in the file.
        is_xing: True for Xing and Info; False for VBRI, which decoders do not know.
        n_frames: number of frames behind it, as it claims; None if it does not.
        n_bytes: bytes of the stream including itself, as it claims; None if it does not.
        frames_place: offset in the file of the number of frames.
        delays_place: offset in the file of the encoder's delay and padding; None without them.
        delay, padding: samples that the encoder has added at the beginning and the end.
    """

    start: int
    is_xing: bool
    n_frames: int | None = None
    n_bytes: int | None = None
    frames_place: int | None = None
    delays_place: int | None = None
    delay: int = 0
    padding: int = 0

    @property
    def trimmed_start(self) -> int:
        """Samples that a decoder leaves out at the beginning."""
        return 0 if self.delays_place is None else self.delay + DECODER_DELAY

    @property
    def trimmed_end(self) -> int:
        """Samples that a decoder leaves out at the end."""
        return 0 if self.delays_place is None else max(0, self.padding - DECODER_DELAY)

    def patches(self, n_frames: int, trimmed_end: int) -> tuple[tuple[int, bytes], ...]:
        """Bytes to replace, by their offset, so that a decoder reads `n_frames` and trims only `trimmed_end`."""
        patches = []
        if self.frames_place is not None and n_frames != self.n_frames:
            patches.append((self.frames_place, n_frames.to_bytes(4, "big")))
        if self.delays_place is not None and trimmed_end != self.trimmed_end:
            padding = min(LONGEST_PADDING, trimmed_end + DECODER_DELAY)
            patches.append((self.delays_place, (self.delay << 12 | padding).to_bytes(3, "big")))
        return tuple(patches)


def length_frame_at(data: Window, position: int, frame_format: FrameFormat, size: int) -> LengthFrame | None:
    """Length frame of `size` bytes at `position`; None if that frame holds audio."""
    if frame_format.layer != 3:
        return None
    frame = data.read(position, min(size, SPAN))
    place = HEADER + frame_format.side_info
    # Audio may contain the mark, but not behind empty side information; a checksum may precede it.
    if frame[place : place + 4] in XING_MARKS and not any(frame[HEADER + 2 : place]):
        return _xing(frame, position, place + 4)
    if frame[VBRI_PLACE : VBRI_PLACE + 4] == VBRI_MARK and not any(frame[HEADER + 2 : VBRI_PLACE]):
        return LengthFrame(position, False, *_numbers(frame, VBRI_PLACE + 14, 1), *_numbers(frame, VBRI_PLACE + 10, 1))
    return None


def _xing(frame: bytes, position: int, place: int) -> LengthFrame:
    (flags,) = _numbers(frame, place, 1) or (0,)
    place += 4
    n_frames = n_bytes = frames_place = delays_place = None
    if flags & HAS_FRAMES:
        (n_frames,), frames_place = _numbers(frame, place, 1) or (None,), position + place
        n_frames = None if n_frames == UNKNOWN else n_frames
        place += 4
    if flags & HAS_BYTES:
        (n_bytes,) = _numbers(frame, place, 1) or (None,)
        place += 4
    place += TABLE_SIZE * bool(flags & HAS_TABLE) + 4 * bool(flags & HAS_QUALITY)
    delays = frame[place + DELAYS_PLACE : place + DELAYS_PLACE + 3]
    delay = padding = 0
    if len(delays) == 3 and frame[place] != 0:
        delays_place = position + place + DELAYS_PLACE
        both = int.from_bytes(delays, "big")
        delay, padding = both >> 12, both & LONGEST_PADDING
    return LengthFrame(position, True, n_frames, n_bytes, frames_place, delays_place, delay, padding)


def _numbers(frame: bytes, place: int, count: int) -> tuple[int, ...]:
    return tuple(
        int.from_bytes(frame[begin : begin + 4], "big")
        for begin in range(place, place + 4 * count, 4)
        if begin + 4 <= len(frame)
    )
