"""Audio of a row: the bytes of a file, a file that it names, or decoded samples."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from codectok.errors import AudioError
from codectok.names import printable
from codectok.sources.source import Source
from codectok.sources.stores.web import too_large
from codectok.storage import is_url

from .columns import BYTES_FIELD, PATH_FIELD, RATE_NAMES, SAMPLES_FIELD, Column
from .rows import plain_scalar
from .samples import sample_rate_of, wav_of


@dataclass(frozen=True)
class RowAudio:
    """Audio of a row, and the suffix of its name."""

    audio: Path | bytes
    suffix: str = ""


def parts_of(value: Any) -> tuple[bytes | None, str | None]:
    """Return the bytes and the path in a value; None for a part that is missing."""
    if isinstance(value, dict):
        return value.get(BYTES_FIELD), value.get(PATH_FIELD)
    return (None, value) if isinstance(value, str) else (value, None)


def audio_of_row(value: Any, column: Column, source: Source, number: int, labels: Mapping[str, Any]) -> RowAudio:
    """Return the audio in a row of `source`.

    Args:
        value: of the audio column; a scalar of Arrow for decoded samples; None if it is null.
        column: the audio column.
        source: the Parquet file.
        number: of the row.
        labels: other columns of the row, which may hold the sampling rate.

    Raises:
        AudioError: the row has no audio, or names a file that cannot be found, or decoded samples that cannot be used.
    """
    data, path = (None, None) if column.form == "samples" else parts_of(value)
    if not isinstance(data, bytes | None) or not isinstance(path, str | None):
        kind = type(path if isinstance(data, bytes | None) else data).__name__
        message = (
            f"There is no audio in row {number} of {source.where}: its {column.name!r} holds a value of type {kind}."
        )
        raise AudioError(message, "unreadable")
    if data is not None and len(data) > source.max_held_bytes:
        raise too_large(f"Row {number} of {source.where}", len(data), source.max_held_bytes)
    if data:
        return RowAudio(data, PurePosixPath(path).suffix if path else "")
    row = f"row {number} of {source.where}"
    if value is None:
        raise AudioError(f"There is no audio in {row}: its {column.name!r} is null.", "unreadable")
    if column.form == "samples":
        return RowAudio(_decoded(value, column, row, labels))
    if path and "\0" in path:
        raise AudioError(f"The path in {row} has a NUL character, so that it cannot be one of a file.", "unreadable")
    if path:
        return RowAudio(_named_file(path, source, row), PurePosixPath(path).suffix)
    raise AudioError(f"There is no audio in {row}: its {column.name!r} has neither bytes nor a path.", "unreadable")


def _decoded(value: pa.Scalar, column: Column, row: str, labels: Mapping[str, Any]) -> bytes:
    """Return decoded samples as a WAV file; the rate is beside them, in another column, or in the feature."""
    rates: list[object] = []
    samples: pa.Scalar | None = value
    if isinstance(value, pa.StructScalar):
        samples = _field(value, SAMPLES_FIELD)
        rates = [None if found is None else found.as_py() for found in (_field(value, name) for name in RATE_NAMES)]
    if samples is None:
        raise AudioError(f"There is no audio in {row}: its {column.name!r} has no samples.", "unreadable")
    rate = next((one for one in rates if one is not None), None)
    if rate is None:
        rate = next((labels[name] for name in RATE_NAMES if labels.get(name) is not None), column.sampling_rate)
    return wav_of(samples.values, sample_rate_of(rate, row), row)


def _field(value: pa.StructScalar, name: str) -> pa.Scalar | None:
    if name not in value:
        return None
    found = plain_scalar(value[name])
    return found if found.is_valid else None


def _named_file(path: str, source: Source, row: str) -> Path | bytes:
    """Return a file that a row names: relative to the Parquet file, else to the root of the dataset."""
    shown = printable(path)
    if is_url(path):
        message = f"The URL {shown} in {row} is not fetched; make a manifest of the URLs."
        raise AudioError(message, "unreadable")
    if path.startswith("/") and source.url is None:
        if Path(path).is_file():
            return Path(path)
        raise AudioError(f"There is no file {shown}; {row} names it and has no bytes.", "unreadable")
    looked = []
    for place in _places(path, source):
        if place.path.startswith("../"):
            message = f"The path {shown} leads out of {place.root}; make the folder above a source ({row})."
            raise AudioError(message, "unreadable")
        if place.url is None and place.location.is_file():
            return place.location
        if place.url is not None:
            try:
                return place.audio()
            except AudioError as error:
                if error.reason != "unreadable":
                    raise
                # It is not there.
        looked.append(place.where)
    raise AudioError(f"There is no file {' or '.join(looked)}; {row} names it and has no bytes.", "unreadable")


def _places(path: str, source: Source) -> list[Source]:
    """Return the files that a relative path in `source` may mean."""
    folder, root = posixpath.dirname(source.path), source.root
    if is_url(source.path) or source.path.startswith("/"):
        folder, root = "", folder
    places = dict.fromkeys(posixpath.normpath(posixpath.join(base, path.lstrip("/"))) for base in (folder, ""))
    return [Source(source.dataset, root, place, "audio", max_file_bytes=source.max_file_bytes) for place in places]
