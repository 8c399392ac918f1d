"""Layout of MPEG audio, such as MP3 files: one or more streams of frames among tags, padding and damage."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from codectok.audio.framing.layout import Damage, Layout, Stream
from codectok.audio.framing.tags import is_id3v2, tag_end
from codectok.audio.framing.window import Window

from .frames import LONGEST_FRAME, FrameFormat
from .length_frame import LengthFrame
from .walk import Gap, Run, walk

# A recorder or a cut may begin a file inside of a frame, and a tag may be longer than it says.
LEADING, LEADING_BEHIND_TAG = 4 * LONGEST_FRAME, 1 << 24
# First bytes of other formats, which may hold MPEG frames or something like them.
OTHER_FORMATS = (
    b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b"fLaC", b"OggS", b"caff", b".snd", b"Creative", b"NIST",
    b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75", b"wvpk", b"MAC ", b"TTA1", b"ADIF", b"#!AMR", b"MThd", b"PK\x03\x04",
    b"\x1f\x8b", b"PAR1", b"fap ", b" paf", b"MATLAB", b"\0\0\x01\xba", b"AT&T", b"FLV",
)  # fmt: skip


def layout_of_mp3(file: BinaryIO) -> Layout | None:
    """Layout of an MP3 file, also of layers I and II; None for other files."""
    size = file.seek(0, os.SEEK_END)
    data = Window(file, 0, size)
    start = 0
    while is_id3v2(data, start):
        start = tag_end(data, start) or size
    head = data.read(start, 12)
    if head.startswith(OTHER_FORMATS) or head[4:8] == b"ftyp" or _is_transport_stream(data, start):
        return None
    return layout_of_mpeg(file, 0, size, LEADING_BEHIND_TAG if start else LEADING)


def layout_of_mpeg(file: BinaryIO, start: int, end: int, leading: int = LEADING) -> Layout | None:
    """Layout of the MPEG audio in a range of bytes of a file; None if it has no frames.

    `leading` is the number of bytes in which the first frame or tag must begin.
    """
    parts = _Parts()
    for piece in walk(Window(file, start, end), leading):
        if isinstance(piece, Run):
            parts.add(piece)
        else:
            parts.pass_by(piece)
    return parts.layout()


def _is_transport_stream(data: Window, start: int) -> bool:
    return all(data.read(start + place, 1) == b"\x47" for place in (0, 188, 376))


@dataclass
class _Part:
    """Frames that one length frame describes, or that have none.

    Attributes:
        start, end, last: byte range, and offset of the last frame.
        format: of the frames.
        length_frame: its claims; None without one.
        n_frames: frames to decode.
        before: frames of earlier parts that the same length frame describes.
        lost: frames that follow damage.
        cut_off: True if a part of a frame follows.
    """

    start: int
    end: int
    last: int
    format: FrameFormat
    length_frame: LengthFrame | None
    n_frames: int
    before: int = 0
    lost: int = 0
    cut_off: bool = False

    @classmethod
    def of(cls, run: Run, follows: _Part | None = None) -> _Part:
        """Begin a part; it has the claims of the part that it `follows`."""
        part = cls(run.start, run.end, run.last, run.format, run.length_frame, run.n_frames)
        return part if follows is None else replace(part, length_frame=follows.length_frame, before=follows.all_frames)

    @property
    def all_frames(self) -> int:
        return self.before + self.n_frames

    @property
    def claimed(self) -> int:
        """Number of frames that the length frame claims; 0 if it is unknown."""
        return (self.length_frame and self.length_frame.n_frames) or 0

    @property
    def is_complete(self) -> bool:
        return 0 < self.claimed <= self.all_frames

    @property
    def missing_samples(self) -> int:
        """Samples that are claimed or follow damage, but are not decoded."""
        absent, length_frame = self.claimed - self.all_frames, self.length_frame
        if self.lost == 0 and absent > 0 and length_frame is not None and not self.cut_off:
            # With all of its bytes, a length frame has counted wrong; without their number it may count itself.
            end = length_frame.start + (length_frame.n_bytes or 0)
            if end <= self.end and (length_frame.n_bytes or absent == 1):
                return 0
        samples = max(absent, self.lost) * self.format.samples
        if length_frame is not None and absent > 0:
            samples -= length_frame.trimmed_end + (0 if self.all_frames else length_frame.trimmed_start)
        return max(0, samples)

    @property
    def missing_seconds(self) -> float:
        return self.missing_samples / self.format.sample_rate

    def drop_last(self) -> None:
        """Leave out the last frame, which is cut off or may be damaged."""
        self.end, self.n_frames = self.last, max(0, self.n_frames - 1)

    def stream(self) -> Stream:
        """The bytes to decode, with a true number of frames."""
        samples, length_frame = self.format.samples, self.length_frame
        if length_frame is not None and length_frame.start != self.start:
            length_frame = None  # it describes the part before
        if length_frame is None or length_frame.frames_place is None:
            # Decoders count the frame as audio unless it is Xing's. Without a length they must not guess one.
            n_samples = (self.n_frames + (length_frame is not None and not length_frame.is_xing)) * samples
            return Stream(self.start, self.end, n_samples=n_samples, piped=not self.format.is_free)
        absent = self.claimed - self.all_frames
        if absent > 0 and self.missing_samples:
            trimmed = max(0, length_frame.trimmed_end - absent * samples)
        elif absent < 0 or self.lost or not self.claimed:
            trimmed = 0  # the end that was to be trimmed is not here
        else:
            trimmed = length_frame.trimmed_end
        n_samples = max(0, self.n_frames * samples - length_frame.trimmed_start - trimmed)
        return Stream(self.start, self.end, length_frame.patches(self.n_frames, trimmed), n_samples)


@dataclass
class _Parts:
    """Assembles parts from runs and gaps, up to the first damage."""

    parts: list[_Part] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    damage: str | None = None
    lost_seconds: float = 0.0
    lost: _Part | None = None
    unused_bytes: int = 0

    def pass_by(self, gap: Gap) -> None:
        """Note a gap; the next run decides if it is damage."""
        self.gaps.append(gap)

    def add(self, run: Run) -> None:
        """Add a run to the current part, begin another one, or find it behind damage."""
        gaps, self.gaps = self.gaps, []
        unknown = sum(gap.end - gap.start for gap in gaps if gap.kind == "unknown")
        if not self.parts:
            self.unused_bytes += unknown if unknown > LONGEST_FRAME else 0  # else a frame that was cut
            self.parts.append(_Part.of(run))
            return
        part = self.parts[-1]
        id3v2 = any(gap.id3v2 for gap in gaps)
        other = run.length_frame is not None or not run.format.is_like(part.format)
        if self.damage is not None:
            self._lose(run, other)
            return
        partial = self._drop_partial(gaps)
        if not part.is_complete and (unknown or (partial and not (other or id3v2))):
            # The damage may be in the last frame, whose end nothing confirms.
            if unknown and not partial:
                part.drop_last()
            self.damage = f"is damaged at byte {part.end:,}, and the time of the audio behind it is unknown"
            part.lost = 1
            self._lose(run, other)
        elif other or part.is_complete:
            self.unused_bytes += unknown
            self._close(part)
            if self.damage is not None:
                self._lose(run, other=True)
            else:
                self.parts.append(_Part.of(run))
        elif all(gap.skipped for gap in gaps):
            part.end, part.last, part.n_frames = run.end, run.last, part.n_frames + run.n_frames
        else:
            self.parts.append(_Part.of(run, follows=part))

    def layout(self) -> Layout | None:
        """The layout of all pieces; None without frames."""
        if not self.parts:
            return None
        part = self.parts[-1]
        self._drop_partial(self.gaps)
        self.unused_bytes += sum(gap.end - gap.start for gap in self.gaps if gap.kind == "unknown")
        if self.damage is None:
            self._close(part)
        damage = None
        if self.damage is not None:
            lost = self.lost_seconds + part.missing_seconds + (self.lost.missing_seconds if self.lost else 0.0)
            damage = Damage(self.damage, lost)
        streams = tuple(part.stream() for part in self.parts if part.n_frames)
        return Layout("MP3", streams, damage, self.unused_bytes)

    def _drop_partial(self, gaps: list[Gap]) -> bool:
        """Shorten the current part if its last frame is cut off; return True if one is, counted or not."""
        part = self.parts[-1]
        partial = [gap for gap in gaps if gap.kind == "partial"]
        if any(gap.start < part.end for gap in partial) and self.damage is None:
            part.drop_last()
        part.cut_off = part.cut_off or bool(partial)
        return bool(partial)

    def _close(self, part: _Part) -> None:
        """Note damage if the part has fewer frames than its length frame claims."""
        if part.missing_samples:
            self.damage = f"is cut off: it has {part.all_frames:,} of {part.claimed:,} frames"

    def _lose(self, run: Run, other: bool) -> None:
        """Count a run behind damage."""
        if other and self.lost is not None:
            self.lost_seconds += self.lost.missing_seconds
            self.lost = None
        if self.lost is not None:
            self.lost.lost += run.n_frames
        elif other:
            self.lost = replace(_Part.of(run), n_frames=0, lost=run.n_frames)
        else:
            self.parts[-1].lost += run.n_frames
