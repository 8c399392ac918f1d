"""Clips of WebDataset tars, ours and others'."""

from __future__ import annotations

import json
import os
import sys
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from pydantic import ValidationError

from codectok.audio.files import is_audio_path
from codectok.audio.spans import Labels, Span
from codectok.errors import AudioError
from codectok.keys import make_key
from codectok.names import printable
from codectok.shards import Sample

from .clip import Clip
from .opening import open_source
from .rejects import Reject
from .sample_texts import chosen_json, chosen_text, described_by_members
from .source import Source
from .unused import Unused, UnusedCounts, add_unused

# Larger buffers would read much of the data between two headers.
BUFFER_BYTES = 2 * tarfile.BLOCKSIZE
END_MARK = 2 * tarfile.BLOCKSIZE  # a tar ends with two blocks of zeros


def clips_of_tar(source: Source) -> Iterator[Clip | Reject | Unused]:
    """Yield the samples of a tar that begin in the source's range of bytes, then what is not used of them.

    A damaged tar yields its readable samples, then a reject.
    """
    unused: UnusedCounts = {}
    yield from _clips(source, unused)
    for kind, names in unused.items():
        for name, entry in sorted(names.items()):
            yield Unused(kind, name, entry.count, entry.example)


def _clips(source: Source, unused: UnusedCounts) -> Iterator[Clip | Reject]:
    seen: set[str] = set()
    # The last range has no end: a compressed file may be called .tar, and offsets count uncompressed bytes.
    last_byte = sys.maxsize if source.last_byte in (None, source.size) else source.last_byte
    wanted = range(source.first_byte or 0, last_byte)
    try:
        with open_source(source, BUFFER_BYTES) as file:
            for key, offset, members in _tar_samples(file, wanted):
                if offset >= wanted.stop:
                    return  # the rest belongs to other units
                repeated = key in seen
                seen.add(key)
                if members is None:
                    continue
                if repeated:
                    message = f"The sample {key} occurs twice in {source.where}; put its members next to each other."
                    yield Reject.in_container(AudioError(message, "unsupported"), source, key)
                else:
                    yield _clip(source, key, members, unused)
    except AudioError as error:
        yield Reject.in_container(error, source)
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        message = f"The tar {source.where} cannot be read to its end: {error}."
        yield Reject.in_container(AudioError(message, "unreadable"), source)


def _tar_samples(file: BinaryIO, wanted: range) -> Iterator[tuple[str, int, dict[str, bytes] | None]]:
    """Key, offset of the first member, and members by suffix of each sample; members are None outside `wanted`.

    Only headers are read of samples outside `wanted`.
    """
    key, offset = "", -1
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=file, mode="r:*") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member
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
    if tar.fileobj is file:  # a truncated compressed tar has failed already
        file.seek(-END_MARK, os.SEEK_END)
        if any(file.read()):
            raise EOFError("it has no end mark and may be cut off")


def _clip(source: Source, key: str, members: dict[str, bytes], unused: UnusedCounts) -> Clip | Reject:
    suffixes = [name for name in members if is_audio_path(f"x.{name.rpartition('.')[2]}")]
    shown = printable(key)
    if len(suffixes) != 1:
        message = f"The sample {shown} in {source.where} has {len(suffixes)} audio files, not one."
        return Reject.in_container(AudioError(message, "unsupported"), source, shown)
    audio = members.pop(suffixes[0])
    sample = _sample(members.get("json"))
    # Keys of other tools are unique within one tar at most.
    clip_id = key if sample is not None else make_key(source.dataset, f"{source.path}/{key}")
    if sample is not None:
        labels = Labels(sample.language, sample.speaker, sample.category)
        extra = None if sample.extra is None else json.dumps(sample.extra, ensure_ascii=False, sort_keys=True)
        span = Span(id=sample.id, text=sample.text, labels=labels, extra=extra)
        clip = Clip(clip_id, audio, sample.dataset, sample.source, span, sample.start)
        used: set[str | None] = {"json"}
    else:
        text, description = chosen_text(members), chosen_json(members)
        where = f"The sample {shown} in {source.where}"
        try:
            span, left_out = described_by_members(members, text, description, where, source.encoding)
        except AudioError as error:
            return Reject.in_container(error, source, shown)
        clip = Clip(clip_id, audio, source.dataset, f"{source.name}/{shown}.{suffixes[0]}", span)
        used = {text, description}
        for name in left_out:
            add_unused(unused, Unused("columns", name, example=clip.source))
    for name in members.keys() - used:
        add_unused(unused, Unused("members", name, example=f"{source.name}/{shown}.{name}"))
    return clip


def _sample(data: bytes | None) -> Sample | None:
    """The sample's JSON, if `codectok shard` wrote it."""
    if data is None:
        return None
    try:
        return Sample.model_validate_json(data)
    except ValidationError:
        return None
