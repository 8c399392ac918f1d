"""Decoding with the program ffmpeg, for formats that libsndfile does not read."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from codectok.errors import AudioError

from .wave_header import read_wave_header

SAMPLE = np.dtype("<f4")


def is_installed() -> bool:
    """Return True if ffmpeg is on the PATH."""
    return shutil.which("ffmpeg") is not None


@dataclass(frozen=True)
class DecodedStream:
    """Audio that ffmpeg decodes.

    Attributes:
        sample_rate: in Hz.
        channels: number of channels.
        channel_mask: a bit for the position of each channel, as in WAV files; 0 if unknown.
    """

    sample_rate: int
    channels: int
    channel_mask: int
    _pipe: IO[bytes]

    def blocks(self, frames: int) -> Iterator[np.ndarray]:
        """Yield blocks float32 [n, channels] of at most `frames` samples per channel."""
        while data := self._pipe.read(frames * self.channels * SAMPLE.itemsize):
            whole = len(data) // (self.channels * SAMPLE.itemsize)
            samples = np.frombuffer(data, SAMPLE, whole * self.channels)
            yield samples.reshape(whole, self.channels).astype(np.float32)


@contextmanager
def decoding(source: Path | bytes, where: str) -> Iterator[DecodedStream]:
    """Decode `source`, a path or the bytes of a file, while the context lasts.

    `where` names the source in messages.

    Raises:
        AudioError: "unreadable" if ffmpeg finds no audio, "decode_error" if the audio is damaged.
    """
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="codectok-") as folder:
        if isinstance(source, bytes):  # MP4 needs a file that can seek
            path = Path(folder) / "audio"
            path.write_bytes(source)
            source = path
        # "file:": a name with a colon is not a protocol. -xerror: damage is not taken for the end of the file.
        command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", f"file:{source.absolute()}", "-map", "0:a:0"]
        command += ["-threads", "1", "-f", "wav", "-c:a", "pcm_f32le", "-"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None, "it is a pipe"
        finished = False
        try:
            header = read_wave_header(process.stdout)
            if header is None:
                process.wait()
                raise AudioError(f"{where} is not audio that ffmpeg can read: {_reason(log)}.", "unreadable")
            yield DecodedStream(header.sample_rate, header.channels, header.channel_mask, process.stdout)
            finished = not process.stdout.read(1)
        finally:
            if not finished:
                process.kill()
            process.stdout.close()
            process.wait()
        if finished and process.returncode != 0:
            raise AudioError(f"{where} cannot be decoded: {_reason(log)}.", "decode_error")


def _reason(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].rstrip(".") if lines else "no message"
