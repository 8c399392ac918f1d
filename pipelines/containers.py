"""Audio inside other files: WebDataset tars, and Parquet as Hugging Face datasets write it."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from codectok.audio.files import is_audio_path
from codectok.audio.stretches import Labels, Stretch
from codectok.errors import AudioError
from codectok.keys import make_key
from codectok.names import printable
from codectok.shards import Sample
from codectok.storage import open_file_system
from codectok.tokens.clips import Clip

from .rejects import Reject
from .sources import Source

END_MARK = 2 * tarfile.BLOCKSIZE  # a tar ends with two blocks of zeros
TEXT_SUFFIXES = ("txt", "text", "transcript")
ROWS_AT_ONCE = 32
# What other tools call the same things.
TEXTS = ("text", "transcription", "transcript", "sentence", "normalized_text")
LANGUAGES, SPEAKERS, CATEGORIES = ("language", "lang", "locale"), ("speaker", "speaker_id"), ("category",)
IDS = ("id", "utt_id", "segment_id")


def clips_of_tar(source: Source) -> Iterator[Clip | Reject]:
    """The samples of a tar (those that begin in the source's range of bytes); a damaged one gives what it can."""
    seen: set[str] = set()
    try:
        with _opened(source) as file:
            for key, offset, members in _tar_samples(file):
                if source.last_byte is not None and offset >= source.last_byte:
                    return  # the rest belongs to other units
                repeated = key in seen
                seen.add(key)
                if offset < (source.first_byte or 0):
                    continue
                if repeated:
                    message = f"The sample {key} in {source.where} comes up twice; its members must be neighbours."
                    yield _reject(source, message, "unsupported", key)
                else:
                    yield _clip_in_tar(source, key, members)
        if source.url is None and not source.path.endswith("gz") and not _has_end_mark(source.location):
            raise EOFError("it has no end mark and may be cut off")
    except AudioError as error:
        yield _reject(source, str(error), error.reason)
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        yield _reject(source, f"The tar {source.where} cannot be read to its end: {error}.", "unreadable")


def clips_of_parquet(source: Source) -> Iterator[Clip | Reject | None]:
    """A clip for each row of a Parquet file with audio in it; None for a file without."""
    try:
        with _opened(source) as opened, pq.ParquetFile(opened) as file:
            column = _audio_column(file.schema_arrow)
            if column is None:
                yield None
                return
            for group in range(file.num_row_groups):
                metadata = file.metadata.row_group(group)
                begins = min(metadata.column(i).file_offset for i in range(metadata.num_columns))
                begins = max(begins, 4) if group else 0  # some writers leave offsets out
                if not (source.first_byte or 0) <= begins < (source.last_byte or float("inf")):
                    continue
                first = sum(file.metadata.row_group(i).num_rows for i in range(group))
                rows = (
                    row for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group]) for row in batch.to_pylist()
                )
                for number, row in enumerate(rows, start=first):
                    yield _clip_in_row(source, number, row, column)
    except AudioError as error:
        yield _reject(source, str(error), error.reason)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        yield _reject(source, f"The Parquet file {source.where} cannot be read: {reason}.", "unreadable")


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    if source.url is None:
        source.audio()  # notices that it has changed
        with source.location.open("rb") as file:
            yield file
    else:
        files, path = open_file_system(source.url)
        with files.open(path, "rb") as file:
            yield file


def _tar_samples(file: BinaryIO) -> Iterator[tuple[str, int, dict[str, bytes]]]:
    """Key, place of the first member and all members by suffix of each sample; data is read on the way."""
    key, offset = "", 0
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=file, mode="r:*") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile remembers every member it has seen
            if not member.isfile():
                continue
            folder, _, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            if not stem:
                continue
            own_key = f"{folder}/{stem}" if folder else stem
            if own_key != key and members:
                yield key, offset, members
                members = {}
            if not members:
                key, offset = own_key, member.offset
            opened = tar.extractfile(member)
            assert opened is not None, "it is a file"
            members[suffix.lower()] = opened.read()
    if members:
        yield key, offset, members


def _clip_in_tar(source: Source, key: str, members: dict[str, bytes]) -> Clip | Reject:
    suffixes = [name for name in members if is_audio_path(f"x.{name.rpartition('.')[2]}")]
    shown = printable(key)
    if len(suffixes) != 1:
        message = f"The sample {shown} in {source.where} has {len(suffixes)} audio files, not one."
        return _reject(source, message, "unsupported", shown)
    audio = members[suffixes[0]]
    described = _sample(members.get("json"))
    if described is not None:
        return Clip(key, audio, described.dataset, described.source, sample=described)
    known = _json(members.get("json"))
    for name in TEXT_SUFFIXES:
        if name in members:
            known["text"] = members[name].decode("utf-8", "replace").strip()
    # Keys of other makers are unique in their tar at most.
    name = make_key(source.dataset, f"{source.path}/{key}")
    return Clip(name, audio, source.dataset, f"{source.name}/{shown}.{suffixes[0]}", stretch=_stretch(known))


def _clip_in_row(source: Source, number: int, row: dict[str, Any], column: str) -> Clip | Reject:
    value = row.pop(column)
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    name = f"{source.name}/{number}"
    if data is None and path is not None and source.url is None:
        beside = source.location.parent / path
        data = beside if beside.is_file() else None
    if data is None:
        return _reject(source, f"Row {number} of {source.where} has no audio.", "empty", str(number))
    suffix = PurePosixPath(path).suffix if path else ""
    key = make_key(source.dataset, f"{source.path}/{number}")
    return Clip(key, data, source.dataset, f"{name}{suffix}", stretch=_stretch(row))


def _audio_column(schema: pa.Schema) -> str | None:
    for field in schema:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return field.name
    for field in schema:
        if field.name == "audio" and (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)):
            return field.name
    return None


def _stretch(known: dict[str, Any]) -> Stretch | None:
    """What other makers say of a clip, by the names that they use."""

    def first(names: tuple[str, ...]) -> str | None:
        found = (known.get(name) for name in names)
        return next((str(value) for value in found if isinstance(value, str | int) and str(value)), None)

    labels = Labels(first(LANGUAGES), first(SPEAKERS), first(CATEGORIES))
    stretch = Stretch(id=first(IDS), text=first(TEXTS), labels=labels)
    return None if stretch == Stretch() else stretch


def _sample(data: bytes | None) -> Sample | None:
    """The sample's JSON if it is of our form."""
    if data is None:
        return None
    try:
        return Sample.model_validate_json(data)
    except ValidationError:
        return None


def _json(data: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(data) if data else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _has_end_mark(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-END_MARK, os.SEEK_END)
        return not any(file.read())


def _reject(source: Source, message: str, reason: str, key: str | None = None) -> Reject:
    name = source.name if key is None else f"{source.name}/{key}"
    return Reject.of(AudioError(message, reason), source.dataset, name, "read")
