"""Decoding with the program ffmpeg, for formats that libsndfile does not read."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from codectok.errors import AudioError

# Header of an AU file: magic number, offset and size of the samples, encoding, sample rate, channels.
AU_HEADER = struct.Struct(">4sIIIII")
SAMPLE = np.dtype(">f4")


def is_installed() -> bool:
    """Return True if ffmpeg is on the PATH."""
    return shutil.which("ffmpeg") is not None


@dataclass(frozen=True)
class DecodedStream:
    """Audio that ffmpeg decodes.

    Attributes:
        sample_rate: in Hz.
        channels: number of channels.
    """

    sample_rate: int
    channels: int
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
        command += ["-threads", "1", "-f", "au", "-c:a", "pcm_f32be", "-"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None, "it is a pipe"
        finished = False
        try:
            header = process.stdout.read(AU_HEADER.size)
            if len(header) < AU_HEADER.size:
                process.wait()
                raise AudioError(f"{where} is not audio that ffmpeg can read: {_reason(log)}.", "unreadable")
            _, data_offset, _, _, sample_rate, channels = AU_HEADER.unpack(header)
            process.stdout.read(data_offset - AU_HEADER.size)
            yield DecodedStream(sample_rate, channels, process.stdout)
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
