"""Clips of tars whose samples another file describes: cuts of lhotse's Shar, manifests of NeMo."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from codectok.audio.spans import Span
from codectok.errors import AudioError, Reason, is_lasting
from codectok.keys import make_key
from codectok.names import printable, writable
from codectok.reading import reading
from codectok.sources.clip import Clip
from codectok.sources.encodings import MAX_LINE_BYTES
from codectok.sources.manifests.read import bad_row, problem_of, row_of_values
from codectok.sources.manifests.row import ManifestRow
from codectok.sources.manifests.text_files import open_binary, place_of
from codectok.sources.opening import open_source
from codectok.sources.rejects import Reject
from codectok.sources.source import Source, row_digest, row_of
from codectok.sources.tars.archives import JoinedTars
from codectok.sources.tars.clips import BUFFER_BYTES, UNREADABLE, damaged
from codectok.sources.tars.headers import Member, Unreadable

from .companion import Companion
from .layout import CorpusFolder
from .nemo import shard_of

NOT_AUDIO = (".json", ".nometa")
PLACEHOLDER = ".nodata"  # of Shar, for a cut without a recording

Rows = dict[str, list[ManifestRow]]


def described_clips(source: Source) -> Iterator[Clip | Reject]:
    """Yield a clip for each line about the samples of a tar that begin in the source's range of bytes.

    Lines without a sample and samples without a line become rejects.
    """
    assert source.companion is not None, "its companion describes it"
    companion = Companion.model_validate_json(source.companion)
    last_byte = sys.maxsize if source.last_byte in (None, source.size) else source.last_byte
    wanted = range(source.first_byte or 0, last_byte or 0)
    seen: set[str] = set()
    try:
        rows = _rows(source, companion)
        with open_source(source, BUFFER_BYTES) as file:
            tar = JoinedTars(file, source.where, source.max_held_bytes)
            for entry in tar.entries():
                offset = entry.offset if isinstance(entry, Unreadable) else entry.info.offset
                if offset >= wanted.stop:
                    return  # the rest belongs to other units
                if isinstance(entry, Unreadable):
                    if entry.is_damage and offset in wanted:
                        yield damaged(source, entry)
                elif entry.info.isfile() and not entry.info.name.endswith(NOT_AUDIO):
                    key = _key(entry.info.name, companion)
                    seen.add(key)
                    if offset in wanted:
                        yield from _clips_of_member(source, companion, tar, entry, rows.get(key, []))
    except AudioError as error:
        yield Reject.in_container(error, source)
        return
    except UNREADABLE as error:
        if isinstance(error, OSError) and not is_lasting(error):
            raise
        message = f"The tar {source.where} cannot be read to its end: {error}."
        yield Reject.in_container(AudioError(message, "unreadable"), source)
        return
    for key in sorted(rows.keys() - seen) if wanted.stop == sys.maxsize else ():
        yield from (_without_sample(source, companion, key, row) for row in rows[key])


def _without_sample(source: Source, companion: Companion, key: str, row: ManifestRow) -> Reject:
    if row.problem is not None:
        error = AudioError(row.problem, "invalid_row")
    else:
        message = f"{companion.path} names {printable(key)}, which {source.name} does not hold."
        error = AudioError(message, "unreadable")
    return Reject.in_container(error, source, printable(key))


def _clips_of_member(
    source: Source, companion: Companion, tar: JoinedTars, entry: Member, rows: list[ManifestRow]
) -> Iterator[Clip | Reject]:
    """Yield the clips of a member; an error costs this member only."""
    member = entry.info.name
    try:
        with reading(printable(f"{member} in {source.where}")):
            data = tar.read(entry)
            assert data is not None, "it is a file"
            found = list(_clips(source, companion, member, data, rows))
    except AudioError as error:
        yield Reject.in_container(error, source, printable(member))
        return
    yield from found


def _clips(
    source: Source, companion: Companion, member: str, data: bytes, rows: list[ManifestRow]
) -> Iterator[Clip | Reject]:
    shown = printable(member)
    if member.endswith(PLACEHOLDER):
        message = f"The cut {shown.removesuffix(PLACEHOLDER)} in {source.name} has no recording."
        yield Reject.in_container(AudioError(message, "empty"), source, shown)
        return
    if not rows:
        message = f"No line of {companion.path} names {shown}, which {source.name} holds."
        reason: Reason = (
            "invalid_row" if companion.layout == "shar" else "filtered"
        )  # NeMo leaves such samples out, too
        yield Reject.in_container(AudioError(message, reason), source, shown)
    for row in rows:
        if row.problem is not None:
            yield Reject.in_container(AudioError(row.problem, "invalid_row"), source, shown)
            continue
        digest = f"#{row_digest(row_of(row))}" if len(rows) > 1 else ""
        clip_id = make_key(source.dataset, f"{source.path}/{member.rpartition('.')[0]}{digest}")
        yield Clip(clip_id, data, source.dataset, f"{source.name}/{shown}", _span(source, row))


def _span(source: Source, row: ManifestRow) -> Span:
    fields = row._asdict()
    for name in ("path", "problem", "companion"):
        del fields[name]
    return replace(source, **fields).span


def _key(name: str, companion: Companion) -> str:
    """A name without its suffix; NeMo compares without folders."""
    stem = name.rpartition(".")[0] or name
    return PurePosixPath(stem).name if companion.layout == "nemo" else stem


def _rows(source: Source, companion: Companion) -> Rows:
    """Rows of the companion by the key of their sample."""
    folder = CorpusFolder(source.root)
    where = place_of(source.root, companion.path)
    try:
        if None not in (companion.size, size := folder.size(companion.path)) and size != companion.size:
            raise AudioError(f"{where} has changed since the job was planned.", "changed")
        with open_binary(source.root, companion.path) as file:
            return _parse(file, companion, source.path)
    except (OSError, EOFError) as error:
        raise AudioError(f"{where} cannot be read: {error}.", "unreadable") from None


def _parse(file: BinaryIO, companion: Companion, tar: str) -> Rows:
    file.seek(companion.first_byte)
    position, end = companion.first_byte, companion.last_byte
    rows: Rows = {}
    number = companion.first_line - 1
    while (end is None or position < end) and (line := file.readline(MAX_LINE_BYTES)):
        position += len(line)
        number += 1
        if len(line) == MAX_LINE_BYTES:
            raise AudioError(f"Line {number} of {companion.path} is longer than {MAX_LINE_BYTES:,} bytes.", "too_large")
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if companion.layout == "nemo":
            # Lines that are not JSON became rejects when the tars were listed.
            if not isinstance(values, dict) or f"audio_{shard_of(values)}.tar" != PurePosixPath(tar).name:
                continue
        elif not isinstance(values, dict):
            rows.setdefault(f"line {number}", []).append(bad_row(number, companion.path, "it is not a JSON object"))
            continue
        name = writable(str(values.get("id" if companion.layout == "shar" else "audio_filepath")))
        key = name if companion.layout == "shar" else _key(name, companion)
        rows.setdefault(key, []).append(_row(number, values, companion, name))
    return rows


def _row(number: int, values: dict[str, Any], companion: Companion, name: str) -> ManifestRow:
    try:
        if companion.layout == "nemo":
            return row_of_values(dict(values))[0]
        return row_of_values(dict(values), in_tar=name)[0]
    except Exception as error:
        return bad_row(number, companion.path, problem_of(error), {"path": name})
