"""Audio inside other files: WebDataset tars, and Parquet as Hugging Face datasets write it."""

from __future__ import annotations

import json
import os
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from codectok.audio.files import is_audio_path
from codectok.audio.spans import Labels, Span
from codectok.errors import AudioError, first_line
from codectok.keys import make_key
from codectok.names import printable
from codectok.shards import Sample
from codectok.storage import open_file_system
from codectok.tokens.clips import Clip

from .rejects import Reject
from .source import Source

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
    # The last range has no end: what is called .tar may be packed, and places are those of what is inside.
    last_byte = sys.maxsize if source.last_byte in (None, source.size) else source.last_byte
    wanted = range(source.first_byte or 0, last_byte)
    try:
        with _opened(source) as file:
            for key, offset, members in _tar_samples(file, wanted):
                if offset >= wanted.stop:
                    return  # the rest belongs to other units
                repeated = key in seen
                seen.add(key)
                if members is None:
                    continue
                if repeated:
                    message = f"The sample {key} in {source.where} comes up twice; its members must be neighbours."
                    yield _reject(source, message, "unsupported", key)
                else:
                    yield _clip_in_tar(source, key, members)
    except AudioError as error:
        yield _reject(source, str(error), error.reason)
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        yield _reject(source, f"The tar {source.where} cannot be read to its end: {error}.", "unreadable")


def clips_of_parquet(source: Source) -> Iterator[Clip | Reject | None]:
    """A clip for each row of a Parquet file with audio in it; None for a file without."""
    try:
        with _opened(source) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            column = _audio_column(file.schema_arrow)
            if column is None:
                yield None
                return
            for group in range(file.num_row_groups):
                begins = _first_page(file.metadata.row_group(group))
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
        reason = first_line(error)
        yield _reject(source, f"The Parquet file {source.where} cannot be read: {reason}.", "unreadable")


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    source.check_unchanged()
    if source.url is None:
        # A buffer of its usual size would read much of the data between two headers.
        with source.location.open("rb", buffering=2 * tarfile.BLOCKSIZE) as file:
            yield file
    else:
        files, path = open_file_system(source.url)
        with files.open(path, "rb") as file:
            yield file


def _tar_samples(file: BinaryIO, wanted: range) -> Iterator[tuple[str, int, dict[str, bytes] | None]]:
    """Key, place of the first member and all members by suffix of each sample; None where that place is not wanted.

    Of samples that are not wanted only headers are read.
    """
    key, offset = "", -1
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
            if own_key != key or offset < 0:
                if offset >= 0:
                    yield key, offset, members if offset in wanted else None
                key, offset, members = own_key, member.offset, {}
            if offset in wanted:
                opened = tar.extractfile(member)
                assert opened is not None, "it is a file"
                members[suffix.lower()] = opened.read()
    if offset >= 0:
        yield key, offset, members if offset in wanted else None
    if tar.fileobj is file:  # a packed one that is cut off cannot be unpacked
        file.seek(-END_MARK, os.SEEK_END)
        if any(file.read()):
            raise EOFError("it has no end mark and may be cut off")


def _first_page(group: pq.RowGroupMetaData) -> int:
    """Where the data of a row group begins."""
    columns = [group.column(i) for i in range(group.num_columns)]
    pages = [page for column in columns for page in (column.dictionary_page_offset, column.data_page_offset) if page]
    return min(pages, default=0)


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
    return Clip(name, audio, source.dataset, f"{source.name}/{shown}.{suffixes[0]}", span=_span(known))


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
    return Clip(key, data, source.dataset, f"{name}{suffix}", span=_span(row))


def _audio_column(schema: pa.Schema) -> str | None:
    for field in schema:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return field.name
    for field in schema:
        if field.name == "audio" and (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)):
            return field.name
    return None


def _span(known: dict[str, Any]) -> Span | None:
    """What other makers say of a clip, by the names that they use."""

    def first(names: tuple[str, ...]) -> str | None:
        found = (known.get(name) for name in names)
        return next((str(value) for value in found if isinstance(value, str | int) and str(value)), None)

    labels = Labels(first(LANGUAGES), first(SPEAKERS), first(CATEGORIES))
    span = Span(id=first(IDS), text=first(TEXTS), labels=labels)
    return None if span == Span() else span


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


def _reject(source: Source, message: str, reason: str, key: str | None = None) -> Reject:
    name = source.name if key is None else f"{source.name}/{key}"
    return Reject.of(AudioError(message, reason), source.dataset, name, "read")
