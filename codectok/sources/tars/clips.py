"""Clips of WebDataset tars, ours and others'."""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from codectok.audio.files import is_audio_path
from codectok.audio.signatures import HEAD_BYTES, is_known_other, signature_of
from codectok.audio.spans import Labels, Span
from codectok.errors import AudioError, is_lasting
from codectok.keys import make_key
from codectok.names import printable
from codectok.reading import reading
from codectok.shards import Sample
from codectok.sources.clip import Clip
from codectok.sources.kinds import kind_of
from codectok.sources.opening import open_source
from codectok.sources.rejects import Reject
from codectok.sources.source import Source
from codectok.sources.stores.web import too_large
from codectok.sources.unused import Unused, UnusedCounts, add_unused

from .archives import JoinedTars
from .headers import Member, Unreadable
from .sample_texts import TEXT_SUFFIXES, chosen_json, chosen_text, described_by_members

# Larger buffers would read much of the data between two headers.
BUFFER_BYTES = 2 * tarfile.BLOCKSIZE
UNREADABLE = (OSError, EOFError, ValueError, tarfile.TarError)
# Of the texts and the JSON of a sample, which take a multiple of it when they are parsed.
MAX_TEXT_BYTES = 1 << 24


def clips_of_tar(source: Source) -> Iterator[Clip | Reject | Unused]:
    """Yield the samples of a tar that begin in the source's range of bytes, then what is not used of them.

    Of several tars that are joined all are read. A damaged tar yields its readable samples, and a reject for each
    part that is not.
    """
    unused: UnusedCounts = {}
    yield from _clips(source, unused)
    for kind, names in unused.items():
        for name, entry in sorted(names.items()):
            yield Unused(kind, name, entry.count, entry.example)


def _clips(source: Source, unused: UnusedCounts) -> Iterator[Clip | Reject]:
    seen: dict[bytes, int] = {}  # number of the last archive with each key, by its hash
    # The last range has no end: a compressed file may be called .tar, and offsets count uncompressed bytes.
    last_byte = sys.maxsize if source.last_byte in (None, source.size) else source.last_byte
    wanted = range(source.first_byte or 0, last_byte)
    try:
        with open_source(source, BUFFER_BYTES) as file:
            for found in _tar_samples(JoinedTars(file, source.where, source.max_held_bytes), wanted, source):
                if found.offset >= wanted.stop:
                    return  # the rest belongs to other units
                if isinstance(found, Unreadable):
                    if found.offset in wanted and found.is_damage:
                        yield damaged(source, found)
                    elif found.offset in wanted:
                        name, count = "behind the end mark of a tar", found.end - found.offset
                        add_unused(unused, Unused("trailing_bytes", name, count, source.name))
                    continue
                digest = hashlib.blake2b(found.key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
                earlier = seen.get(digest, -1)
                seen[digest] = found.archive
                if found.offset in wanted:
                    yield _clip_or_reject(source, found, earlier, unused)
    except AudioError as error:
        yield Reject.in_container(error, source)
    except UNREADABLE as error:
        if isinstance(error, OSError) and not is_lasting(error):
            raise
        message = f"The tar {source.where} cannot be read to its end: {error}."
        yield Reject.in_container(AudioError(message, "unreadable"), source)


@dataclass
class _TarSample:
    """Neighbouring members with a common key.

    Attributes:
        key: name without suffixes.
        archive: number of the archive, if several are joined.
        offset: of the first member.
        members: contents by suffix; empty outside the wanted range.
        lost_links: links without target, as "name -> target".
        size: bytes of all members so far.
        problem: why a member cannot be read; None so far.
        is_cut: True if the archive seems to end within a member.
    """

    key: str
    archive: int
    offset: int
    suffixes: set[str] = field(default_factory=set)
    members: dict[str, bytes] = field(default_factory=dict)
    lost_links: list[str] = field(default_factory=list)
    size: int = 0
    problem: AudioError | None = None
    is_cut: bool = False


def _tar_samples(tar: JoinedTars, wanted: range, source: Source) -> Iterator[_TarSample | Unreadable]:
    """Samples in order; only headers are read of samples outside `wanted`.

    An error where a header should be comes after the sample before it, one within a member costs its sample.
    """
    sample: _TarSample | None = None
    entries = tar.entries()
    failure: Exception | None = None
    while True:
        try:
            entry = next(entries, None)
        except UNREADABLE as error:
            entry, failure = None, error
        if entry is None:
            break
        if isinstance(entry, Unreadable):
            if sample is not None:
                yield sample
                sample = None
            yield entry
            continue
        folder, _, name = entry.info.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        if not stem:
            continue
        key, suffix = f"{folder}/{stem}" if folder else stem, suffix.lower()
        # A second member of the same name is a second sample, not the contents of the first one.
        if sample is None or (sample.key, sample.archive) != (key, entry.archive) or suffix in sample.suffixes:
            if sample is not None:
                yield sample
            sample = _TarSample(key, entry.archive, entry.info.offset)
        sample.suffixes.add(suffix)
        if sample.offset in wanted:
            _add_member(sample, suffix, tar, entry, source)
    if sample is not None and not (failure is not None and sample.is_cut):
        yield sample
    if failure is not None:
        raise failure


def _add_member(sample: _TarSample, suffix: str, tar: JoinedTars, entry: Member, source: Source) -> None:
    """Read a member of a sample; an error is kept as the problem of the sample."""
    where = printable(f"{entry.info.name} in {source.where}")
    try:
        sample.size += max(0, entry.info.size)
        if sample.size > source.max_held_bytes:
            raise too_large(f"The sample {printable(sample.key)} in {source.where}", None, source.max_held_bytes)
        data = tar.read(entry)
        if data is None:
            sample.lost_links.append(f"{entry.info.name} -> {entry.info.linkname}")
        else:
            sample.members[suffix] = data
    except AudioError as error:
        sample.problem = error
    except tarfile.ReadError as error:
        sample.is_cut, sample.problem = True, AudioError(f"{where} cannot be read: {error}.", "unreadable")
    if sample.problem is not None:
        sample.members.clear()


def _clip_or_reject(source: Source, found: _TarSample, earlier: int, unused: UnusedCounts) -> Clip | Reject:
    shown = printable(found.key)
    try:
        with reading(f"The sample {shown} in {source.where}"):
            if found.problem is not None:
                raise found.problem
            return _clip(source, found, earlier, unused)
    except AudioError as error:
        return Reject.in_container(error, source, shown)


def damaged(source: Source, found: Unreadable) -> Reject:
    """Reject for bytes of a tar that are not a member."""
    count = found.end - found.offset
    message = f"The tar {source.where} is damaged: {count:,} bytes from byte {found.offset:,} on are not a member."
    return Reject.in_container(AudioError(message, "unreadable"), source)


def _clip(source: Source, found: _TarSample, earlier: int, unused: UnusedCounts) -> Clip | Reject:
    """Clip of a sample; `earlier` is the last archive that had its key before, -1 if there is none."""
    key, members = found.key, found.members
    shown = printable(key)
    if found.lost_links:
        message = f"{found.lost_links[0]} in {source.where} links to a file that is not in the archive."
        return Reject.in_container(AudioError(printable(message), "unreadable"), source, shown)
    for suffix, data in members.items():
        if _is_text(suffix) and len(data) > MAX_TEXT_BYTES:
            message = f"{shown}.{suffix} in {source.where} has {len(data):,} bytes, more than {MAX_TEXT_BYTES:,}."
            return Reject.in_container(AudioError(message, "too_large"), source, shown)
    sample = _sample(members.get("json"))
    if earlier == found.archive or (earlier >= 0 and sample is not None):
        message = f"The sample {shown} occurs twice in {source.where}; put its members next to each other."
        return Reject.in_container(AudioError(message, "unsupported"), source, shown)
    suffixes = _audio_suffixes(members)
    if len(suffixes) != 1:
        message = f"The sample {shown} in {source.where} has {len(suffixes)} audio files, not one."
        return Reject.in_container(AudioError(message, "unsupported"), source, shown)
    audio = members.pop(suffixes[0])
    # Keys of other tools are unique within one tar at most.
    place = f"{source.path}/{key}" if earlier < 0 else f"{source.path}/{found.archive}/{key}"
    clip_id = key if sample is not None else make_key(source.dataset, place)
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


def _is_text(suffix: str) -> bool:
    return suffix.rpartition(".")[2] in ("json", *TEXT_SUFFIXES)


def _audio_suffixes(members: Mapping[str, bytes]) -> list[str]:
    """Suffixes of the members that are audio: by name, else by content."""
    named = [suffix for suffix in members if is_audio_path(f"x.{suffix}")]
    if named:
        return named
    heads = {suffix: data[:HEAD_BYTES] for suffix, data in members.items()}
    shown = [suffix for suffix, head in heads.items() if signature_of(head) is not None]
    unknown = [
        suffix for suffix, head in heads.items() if kind_of(f"x.{suffix}") == "unknown" and not is_known_other(head)
    ]
    return shown or unknown


def _sample(data: bytes | None) -> Sample | None:
    """The sample's JSON, if `codectok shard` wrote it."""
    if data is None:
        return None
    try:
        return Sample.model_validate_json(data)
    except ValidationError:
        return None
