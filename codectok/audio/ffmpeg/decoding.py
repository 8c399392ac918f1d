"""Decoding with the program ffmpeg, for formats that libsndfile does not read."""

from __future__ import annotations

import functools
import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from codectok.audio.framing.layout import Stream
from codectok.audio.framing.view import StreamView, open_source
from codectok.errors import AudioError, NotAudioError

from .claims import Claims, claims_of
from .formats import FORMATS
from .log import TIMES, WITH_TIMES, FfmpegLog
from .wave_header import WaveHeader, read_wave_header

INSTALL = "install ffmpeg (pip install 'codectok[ffmpeg]', or the package of your system)"
VERSION_SECONDS = 30.0
SAMPLE = np.dtype("<f4")
GAP_SECONDS = 0.1  # shorter gaps are delays of encoders and roundings
# A larger jump is a clock that was set anew, not a pause.
LONGEST_GAP_SECONDS = 3600.0
# Durations are rounded, and encoders pad: some frames of a codec are not damage.
TOLERANCE_SECONDS = 0.3
CUT_OFF_TOLERANCE_SECONDS = 0.15  # of a file that is shown to be cut off by its size


def is_installed() -> bool:
    """Return True if there is an ffmpeg: on the PATH, or in the package imageio-ffmpeg."""
    return program() is not None


def program() -> str | None:
    """Path of ffmpeg; None if it is not installed."""
    return shutil.which("ffmpeg") or _packaged_program()


@functools.cache
def installed_version() -> str | None:
    """Return the version of ffmpeg, such as "6.1.1", without that of its package; None if it is not installed."""
    path = program()
    if path is None:
        return None
    try:
        shown = subprocess.run([path, "-version"], capture_output=True, timeout=VERSION_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):  # of another kind of machine, or on a disk that does not answer
        return "unknown"
    found = re.match(rb"ffmpeg version (n?\d+(?:\.\d+)+|\S+)", shown)
    return "unknown" if found is None else found[1].decode(errors="replace")


@functools.cache
def _packaged_program() -> str | None:
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    try:
        path: str = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError:  # it has no binary for this kind of machine
        return None
    return path


@dataclass(frozen=True)
class Input:
    """A file to decode, or a range of one.

    Attributes:
        source: path, or the bytes of the file.
        where: name in messages.
        start, end: byte range; None for the end of the file.
        is_known: True if its first bytes show an audio format, so that a guess of ffmpeg is trusted.
    """

    source: Path | bytes
    where: str
    start: int = 0
    end: int | None = None
    is_known: bool = False


class DecodedStream:
    """Audio that ffmpeg decodes: the first audio track of a file.

    Attributes:
        sample_rate: in Hz.
        channels: number of channels.
        channel_mask: a bit for the position of each channel, as in WAV files; 0 if unknown.
        container, codec: names by ffmpeg.
        other_tracks: number of audio tracks that are not decoded.
    """

    def __init__(self, header: WaveHeader, process: subprocess.Popen[bytes], log: FfmpegLog, file: Input) -> None:
        self.sample_rate, self.channels, self.channel_mask = header.sample_rate, header.channels, header.channel_mask
        self.container, self.codec = log.container.partition(",")[0], log.codec
        self.other_tracks = max(0, log.audio_tracks - 1)
        self._process, self._log, self._file = process, log, file
        self._decoded = self._silent = 0
        self._is_changed = False
        self._origin = 0.0  # the container's time of the first sample, if the container holds nothing else

    def blocks(self, frames: int) -> Iterator[np.ndarray]:
        """Yield blocks float32 [n, channels] of at most `frames` samples per channel.

        Where the container's time jumps ahead, silence fills the gap, so that all positions are the container's.

        Raises:
            AudioError: "decode_error" if the audio is damaged or cut off, after all samples before.
        """
        while len(samples := self._read(frames)):
            self._log.update()
            while self._log.jumps and self._log.jumps[0].position < self._decoded + len(samples):
                before = samples[: max(0, self._log.jumps[0].position - self._decoded)]
                if len(before):
                    yield before
                self._decoded += len(before)
                samples = samples[len(before) :]
                gap = self._gap()
                while gap > 0:
                    self._silent += min(gap, frames)
                    yield np.zeros((min(gap, frames), self.channels), np.float32)
                    gap -= frames
            yield samples
            self._decoded += len(samples)
        self._process.wait()
        self._log.update()
        self._raise_damage()

    def _read(self, frames: int) -> np.ndarray:
        assert self._process.stdout is not None, "it is a pipe"
        size = self.channels * SAMPLE.itemsize
        data = self._process.stdout.read(frames * size)
        whole = len(data) // size
        samples = np.frombuffer(data, SAMPLE, whole * self.channels)
        return samples.reshape(whole, self.channels).astype(np.float32)

    @property
    def _seconds(self) -> float:
        return (self._decoded + self._silent) / self.sample_rate

    def _gap(self) -> int:
        """Number of samples that are missing at the next jump of the container's time."""
        jump = self._log.jumps.popleft()
        # Where the format of the samples changes, ffmpeg counts from 0 again, so that places are unknown.
        self._is_changed = self._is_changed or (jump.position == 0 and self._decoded > 0)
        if self._is_changed or self.container not in WITH_TIMES:
            return 0
        if jump.position == 0 and not self._log.has_video and self._log.audio_tracks == 1:
            self._origin = jump.seconds
        gap = round((jump.seconds - self._origin) * self.sample_rate) - jump.position - self._silent
        if not GAP_SECONDS * self.sample_rate <= gap <= LONGEST_GAP_SECONDS * self.sample_rate:
            return 0
        if jump.position and self._log.error:
            raise AudioError(
                f"{self._file.where} is damaged at {self._seconds:.2f} s: {_sentence(self._log.error)}",
                "decode_error",
                max(0.0, self._missing() or 0.0) or None,
            )
        return gap

    def _missing(self, claims: Claims | None = None) -> float | None:
        """Seconds up to the end that the container states, below 0 for more samples than that; None if unknown."""
        claims = claims or _claims(self._file)
        duration = claims.seconds
        if duration is None and not claims.is_measured:
            duration = self._log.duration
        return None if duration is None else duration - self._seconds

    def _raise_damage(self) -> None:
        """Raise `AudioError` if the decoder failed, or the samples end before the file should."""
        where, claims = self._file.where, _claims(self._file)
        missing = self._missing(claims)
        # More samples than the file states prove that its statement is wrong.
        rest = None if missing is None or missing < -TOLERANCE_SECONDS else max(0.0, missing)
        failed = self._process.returncode != 0
        if not (failed or claims.is_cut_off or self._log.error):
            # The audio of a film may end before the film does.
            if rest is not None and rest > TOLERANCE_SECONDS and (not self._log.has_video or claims.seconds):
                message = f"{where} is cut off: it has {self._seconds:.2f} of {self._seconds + rest:.2f} s."
                raise AudioError(message, "decode_error", rest)
            return
        if "crc" in self._log.error.lower():  # a decoder that goes on after a wrong checksum has made noise
            message = f"{where} is damaged somewhere before {self._seconds:.2f} s: {_sentence(self._log.error)}"
            raise AudioError(message, "decode_error", rest or None)
        if rest is not None and rest <= (TOLERANCE_SECONDS if self._log.has_video else CUT_OFF_TOLERANCE_SECONDS):
            return  # all samples are there, and something behind them is damaged or missing
        if failed or self._log.error:
            message = f"{where} is damaged at or before {self._seconds:.2f} s: {_sentence(self._log.error)}"
        else:
            message = f"{where} is cut off at {self._seconds:.2f} s."
        raise AudioError(message, "decode_error", rest)


@contextmanager
def decoding(file: Input) -> Iterator[DecodedStream]:
    """Decode a file while the context lasts.

    Its name plays no part. Formats that point to other files, or that ffmpeg makes up for text and images, are not
    audio.

    Raises:
        NotAudioError: ffmpeg finds no audio.
        AudioError: "unreadable" if the file is damaged from its start.
    """
    with tempfile.TemporaryDirectory(prefix="codectok-") as folder:
        path, log_path = Path(folder) / "audio", Path(folder) / "log"
        if isinstance(file.source, bytes):  # MP4 needs a file that can seek
            path.write_bytes(file.source)
        else:
            path.symlink_to(file.source.absolute())
        url = f"file:{path}"
        usable = _claims(file).usable_size
        if file.start or file.end is not None or usable is not None:
            end = file.start + usable if usable is not None else file.end or 0
            url = f"subfile,,start,{file.start},end,{end},,:{path}"
        with log_path.open("ab") as errors, closing(FfmpegLog(log_path)) as log:
            process = subprocess.Popen(_command(url), stdout=subprocess.PIPE, stderr=errors)
            assert process.stdout is not None, "it is a pipe"
            try:
                yield _started(process, process.stdout, log, file)
            finally:
                process.kill()
                process.stdout.close()
                process.wait()


def _command(url: str) -> list[str]:
    found = program()
    assert found is not None, "callers check it"
    command = [found, "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info"]
    # -xerror: damage is not taken for the end of the file. -copyts: times are the container's, also without its video.
    command += [
        "-xerror",
        "-copyts",
        "-err_detect",
        "crccheck",
        "-protocol_whitelist",
        "file,subfile",
        "-format_whitelist",
        FORMATS,
    ]
    # One thread: others would lose the frames that they hold when decoding ends at damage.
    command += [
        "-threads",
        "1",
        "-i",
        url,
        "-map",
        "0:a:0",
        "-af",
        TIMES,
        "-f",
        "wav",
        "-bitexact",
        "-c:a",
        "pcm_f32le",
    ]
    command += ["-flush_packets", "1"]
    return [*command, "-"]


def _started(process: subprocess.Popen[bytes], pipe: IO[bytes], log: FfmpegLog, file: Input) -> DecodedStream:
    header = read_wave_header(pipe)
    if header is None:
        process.wait()
    log.update()
    if header is not None and not (log.is_guess and not file.is_known):
        return DecodedStream(header, process, log, file)
    if log.container and log.audio_tracks == 0 and not log.is_guess:
        raise NotAudioError(f"{file.where} has no audio track.")
    if not file.is_known:
        raise NotAudioError(f"{file.where} is not an audio file that ffmpeg reads.")
    if "codec none" in log.error:
        raise AudioError(f"{file.where} is in an encoding that ffmpeg does not know; convert it first.", "unsupported")
    raise AudioError(f"{file.where} is damaged, and ffmpeg cannot read it: {_sentence(log.error)}", "unreadable")


def _claims(file: Input) -> Claims:
    with open_source(file.source) as opened:
        if file.start == 0 and file.end is None:
            return claims_of(opened)
        end = opened.seek(0, io.SEEK_END) if file.end is None else file.end
        return claims_of(io.BufferedReader(StreamView(opened, Stream(file.start, end))))


def _sentence(error: str) -> str:
    return f"{error.rstrip('. ') or 'its data is invalid'}."
