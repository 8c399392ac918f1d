"""Decoding what libsndfile does not read, with the program ffmpeg where it is installed."""

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

# The header of an AU file: magic number, place of the samples, their size, encoding, rate, channels.
AU_HEADER = struct.Struct(">4sIIIII")
SAMPLE = np.dtype(">f4")


def is_installed() -> bool:
    """Whether there is an ffmpeg to call."""
    return shutil.which("ffmpeg") is not None


@dataclass(frozen=True)
class DecodedStream:
    """Sample rate in Hz, number of channels, and where samples float32 [n, channels] are read."""

    sample_rate: int
    channels: int
    _pipe: IO[bytes]

    def blocks(self, frames: int) -> Iterator[np.ndarray]:
        """Blocks [n, channels] of at most `frames` samples."""
        while data := self._pipe.read(frames * self.channels * SAMPLE.itemsize):
            whole = len(data) // (self.channels * SAMPLE.itemsize)
            samples = np.frombuffer(data, SAMPLE, whole * self.channels)
            yield samples.reshape(whole, self.channels).astype(np.float32)


@contextmanager
def decoding(source: Path | bytes, where: str) -> Iterator[DecodedStream]:
    """The audio of `source`, decoded while the context lasts; `where` stands for it in messages.

    Raises:
        AudioError: "unreadable" if ffmpeg finds no audio in it, "decode_error" if it is damaged.
    """
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="codectok-") as folder:
        if isinstance(source, bytes):  # MP4 must be read back and forth, which a pipe cannot
            path = Path(folder) / "audio"
            path.write_bytes(source)
            source = path
        # "file:" keeps ffmpeg from taking a name with a colon for a protocol; damage must not pass for an end.
        command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", f"file:{source.absolute()}", "-map", "0:a:0"]
        command += ["-threads", "1", "-f", "au", "-c:a", "pcm_f32be", "-"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None, "it is a pipe"
        finished = False
        try:
            header = process.stdout.read(AU_HEADER.size)
            if len(header) < AU_HEADER.size:
                process.wait()
                raise AudioError(f"{where} is no audio that ffmpeg can read: {_reason(log)}.", "unreadable")
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
    return lines[-1].rstrip(".") if lines else "it says nothing"
