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

# Start of a WAV file, and of each of its chunks: name and size.
RIFF_HEADER, CHUNK_HEADER = struct.Struct("<4sI4s"), struct.Struct("<4sI")
# Format chunk: encoding, channels, sample rate, bytes a second, bytes and bits a sample; extensible: size, bits, mask.
FORMAT, EXTENSION = struct.Struct("<HHIIHH"), struct.Struct("<HHI")
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
        command += ["-threads", "1", "-f", "wav", "-bitexact", "-c:a", "pcm_f32le", "-"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None, "it is a pipe"
        finished = False
        try:
            header = _read_header(process.stdout)
            if header is None:
                process.wait()
                raise AudioError(f"{where} is not audio that ffmpeg can read: {_reason(log)}.", "unreadable")
            yield DecodedStream(*header, process.stdout)
            finished = not process.stdout.read(1)
        finally:
            if not finished:
                process.kill()
            process.stdout.close()
            process.wait()
        if finished and process.returncode != 0:
            raise AudioError(f"{where} cannot be decoded: {_reason(log)}.", "decode_error")


def _read_header(pipe: IO[bytes]) -> tuple[int, int, int] | None:
    """Read the header of a WAV file to its samples: sample rate, channels and channel mask; None if there is none."""
    if len(pipe.read(RIFF_HEADER.size)) < RIFF_HEADER.size:
        return None
    found = None
    while len(start := pipe.read(CHUNK_HEADER.size)) == CHUNK_HEADER.size:
        name, size = CHUNK_HEADER.unpack(start)
        if name == b"data":
            return found
        chunk = pipe.read(size)
        if name == b"fmt ":
            _, channels, sample_rate, *_ = FORMAT.unpack_from(chunk)
            extended = size >= FORMAT.size + EXTENSION.size
            found = sample_rate, channels, EXTENSION.unpack_from(chunk, FORMAT.size)[2] if extended else 0
    return None


def _reason(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].rstrip(".") if lines else "no message"
