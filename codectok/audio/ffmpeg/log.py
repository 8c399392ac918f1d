"""Reads the log of ffmpeg while it decodes: the container's claims, jumps of its time, and errors."""

from __future__ import annotations

import math
import re
from collections import deque
from pathlib import Path
from typing import NamedTuple

# Logs two numbers at the first sample and wherever the time in the container departs by more than 0.1 s from the
# number of samples: samples so far, and the container's time in seconds. The samples stay as they are. They leave with
# the time of their number, since ffmpeg ends where time goes back, as it does in files that are joined.
TIMES = (
    "asetpts='if(eq(NB_CONSUMED_SAMPLES,0)+gt(abs(T-NB_CONSUMED_SAMPLES/SR-ld(0)),0.1),"
    "print(NB_CONSUMED_SAMPLES)+print(T)+st(0,T-NB_CONSUMED_SAMPLES/SR));STARTPTS+NB_CONSUMED_SAMPLES/SR/TB'"
)
# Their durations are measured on the file instead of read from a header.
WITHOUT_DURATION = frozenset(["mpegts", "mpeg", "ogg", "rm"])
# They store times. Of others ffmpeg computes times from sizes in headers, so that their jumps are no gaps.
WITH_TIMES = frozenset(
    (
        "asf", "asf_o", "avi", "dv", "flv", "gxf", "live_flv", "matroska", "mov",
        "mpeg", "mpegts", "mxf", "nsv", "nut", "ogg", "rm", "wtv",
    )
)  # fmt: skip

_INPUT = re.compile(r"Input #0, (\S+?), from ")
_DURATION = re.compile(r"  Duration: (?:(\d+):(\d\d):(\d\d\.\d+)|N/A)(?:, start: (-?\d+\.\d+))?")
_STREAM = re.compile(r"  Stream #0:\d+\S*: (Audio|Video): (.*)")
_LEVEL = re.compile(r"^(?:\[[^]]* @ [^]]*\] )*\[(\w+)\] ?(.*)")
_NUMBER = re.compile(r"-?\d+\.\d+|-?nan")
# Errors that only repeat that there was one.
_GENERAL = ("file:", "subfile,", "Error ", "Conversion failed", "Nothing was written", "Terminating thread", "Task ")
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")


class Jump(NamedTuple):
    """Place where the container's time departs from the number of samples.

    Attributes:
        position: number of samples before it, from 0 again where the format of the samples changes.
        seconds: the container's time there, from its first time on.
    """

    position: int
    seconds: float


class FfmpegLog:
    """The log of one ffmpeg process, read as far as it is written.

    Attributes:
        container: ffmpeg's name of the input format; "" if it has found none.
        codec: name of the audio codec.
        start: first time in the container, in seconds.
        duration: of the container in seconds, from `start` on; None if it does not state one.
        audio_tracks: number of streams with audio.
        has_video: True if a stream is video, apart from cover art.
        is_guess: True if ffmpeg has recognized the format with low confidence.
        is_other: True if the format is one that holds no recorded sound, such as text.
        jumps: in the order of their positions; taken from the left.
        error: last error so far; "" without any.
    """

    def __init__(self, path: Path) -> None:
        self.container = self.codec = self.error = ""
        self.start = 0.0
        self.duration: float | None = None
        self.audio_tracks = 0
        self.has_video = self.is_guess = self.is_other = False
        self.jumps: deque[Jump] = deque()
        self._file = path.open("rb")
        self._held = b""
        self._number: float | None = None
        self._in_output = self._is_estimate = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def update(self) -> None:
        """Read what was written since the last call."""
        *lines, self._held = (self._held + self._file.read()).split(b"\n")
        for line in lines:
            found = _LEVEL.match(line.decode("utf-8", "replace").rstrip())
            if found is not None:
                self._take(found[1], found[2])

    def _take(self, level: str, text: str) -> None:
        if level in ("error", "fatal", "panic"):
            self._take_error(text)
            self.is_other = self.is_other or "Format not on whitelist" in text
        elif level == "warning":
            self.is_guess = self.is_guess or "misdetection possible" in text
            if "Estimating duration from bitrate" in text:
                self._is_estimate = True
            elif "corrupt" in text.lower():
                self._take_error(text)
        elif _NUMBER.fullmatch(text):
            self._take_number(float(text))
        elif text.startswith("Output #0"):
            self._in_output = True
        elif not self._in_output:
            self._take_description(text)

    def _take_error(self, text: str) -> None:
        """Keep an error, unless it only repeats that there was one."""
        text = _ADDRESS.sub("", text).strip()
        is_general = text.startswith(_GENERAL)
        if text and not (is_general and self.error):
            self.error = text.rpartition("/audio: ")[2]

    def _take_number(self, number: float) -> None:
        if self._number is None:
            self._number = number
            return
        if math.isfinite(number):
            self.jumps.append(Jump(int(self._number), number - self.start))
        self._number = None

    def _take_description(self, text: str) -> None:
        if found := _INPUT.match(text):
            self.container = found[1]
        elif found := _DURATION.match(text):
            self.start = float(found[4] or 0.0)
            if found[1] is not None and not self._is_estimate and self.container not in WITHOUT_DURATION:
                total = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
                self.duration = total - max(0.0, self.start)
        elif found := _STREAM.match(text):
            if found[1] == "Audio":
                self.audio_tracks += 1
                self.codec = self.codec or found[2].partition(",")[0].partition(" ")[0]
            elif "(attached pic)" not in found[2]:
                self.has_video = True
