"""Reads TensorBoard's event files: all scalars, and where the audio lies.

Only one event is held at a time, and series of scalars are thinned while they grow. Files that are still written, or
that a killed run left, are read up to their last whole event.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from codectok.errors import InputError
from codectok.evaluation.pages.line_charts import Point, thinned

PATTERN = "events.out.tfevents.*"
# A record is the length of its data and its checksum (12 bytes), the data, and their checksum (4 bytes).
HEADER = struct.Struct("<QI")
LENGTH_BYTES, CHECKSUM_BYTES = 8, 4
# Points of a series before it is thinned, and after.
MOST_POINTS, THINNED_POINTS = 40_000, 20_000


@dataclass(frozen=True)
class StoredAudio:
    """An audio clip in an event file.

    Attributes:
        step: at which it was written.
        path: of the event file.
        offset: of the event in it.
        n_bytes: length of the event.
        tag: name of the clip.
    """

    step: int
    path: Path
    offset: int
    n_bytes: int
    tag: str

    def load(self) -> bytes:
        """Return the bytes of the audio file."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            event = _parsed(file.read(self.n_bytes))
        values = [] if event is None else event.summary.value
        return next((bytes(value.audio.encoded_audio_string) for value in values if value.tag == self.tag), b"")


@dataclass
class RunEvents:
    """The contents of all event files of a run, without entries that a resumed run has written again.

    Attributes:
        scalars: points (step, value) of each metric.
        audio: clips of each tag, by step.
        last_step: highest step of an entry; None if there is none.
        last_time: when the last entry was written, in seconds since 1970; None if there is none.
        damaged: files that end with an event that cannot be read, and are not merely short.
    """

    scalars: dict[str, list[Point]] = field(default_factory=dict)
    audio: dict[str, list[StoredAudio]] = field(default_factory=dict)
    last_step: int | None = None
    last_time: float | None = None
    damaged: list[Path] = field(default_factory=list)


def read_events(folder: Path) -> RunEvents:
    """Read the event files in `folder`; empty if there are none.

    Raises:
        InputError: tensorboard is not installed.
    """
    found = RunEvents()
    for path in sorted(folder.glob(PATTERN)) if folder.is_dir() else ():
        with path.open("rb") as file:
            for offset, data in _records(file, path.stat().st_size):
                event = None if data is None else _parsed(data)
                if data is None or event is None:
                    found.damaged.append(path)
                    break
                _add(found, event, path, offset, len(data))
    return found


def _records(file: BinaryIO, n_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Iterate over the offsets and data of the whole records; the data are None where a header is damaged."""
    while True:
        header = file.read(HEADER.size)
        offset = file.tell()
        if len(header) < HEADER.size:
            return
        length, checksum = HEADER.unpack(header)
        if _checksum(header[:LENGTH_BYTES]) != checksum:
            yield offset, None
            return
        if offset + length + CHECKSUM_BYTES > n_bytes:
            return
        yield offset, file.read(length)
        file.seek(CHECKSUM_BYTES, 1)


def _checksum(data: bytes) -> int:
    with _tensorboard_errors():
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
    return int(masked_crc32c(data))


def _parsed(data: bytes) -> Any | None:
    with _tensorboard_errors():
        from google.protobuf.message import DecodeError
        from tensorboard.compat.proto.event_pb2 import Event
    try:
        return Event.FromString(data)
    except DecodeError:
        return None


@contextmanager
def _tensorboard_errors() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise InputError("The report needs tensorboard; install it with: pip install 'codectok[train]'.") from None


def _add(found: RunEvents, event: Any, path: Path, offset: int, n_bytes: int) -> None:
    step = int(event.step)
    if event.HasField("session_log"):
        if event.session_log.status == event.session_log.START:
            _forget_from(found, step)
        return
    for value in event.summary.value:
        if value.HasField("simple_value"):
            points = found.scalars.setdefault(value.tag, [])
            points.append((float(step), float(value.simple_value)))
            if len(points) > MOST_POINTS:
                points[:] = thinned(points, THINNED_POINTS)
        elif value.HasField("audio"):
            found.audio.setdefault(value.tag, []).append(StoredAudio(step, path, offset, n_bytes, value.tag))
        else:
            continue
        found.last_step = max(step, found.last_step or 0)
        found.last_time = max(float(event.wall_time), found.last_time or 0.0)


def _forget_from(found: RunEvents, step: int) -> None:
    """Drop the entries of a killed run, from the step where the run was resumed."""
    found.scalars = {tag: [point for point in points if point[0] < step] for tag, points in found.scalars.items()}
    found.audio = {tag: [clip for clip in clips if clip.step < step] for tag, clips in found.audio.items()}
    steps = [int(points[-1][0]) for points in found.scalars.values() if points]
    found.last_step = max(steps, default=None)
