"""The clips of a source: one for an audio file, one for each sample of a tar."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import webdataset
from pydantic import ValidationError

from codectok.audio.files import is_audio_path
from codectok.errors import AudioError
from codectok.keys import make_key
from codectok.names import printable
from codectok.shards import Sample
from codectok.tokens.clips import Clip

from .rejects import Reject
from .sources import Source

END_MARK = 2 * tarfile.BLOCKSIZE  # a tar ends with two blocks of zeros


def clips_of(source: Source) -> Iterator[Clip | Reject]:
    """The clips in `source`, in order; a damaged tar gives those before the damage, then a reject."""
    if source.kind == "tar":
        yield from _clips_of_tar(source)
        return
    try:
        yield clip_of(source)
    except AudioError as error:
        yield Reject.of(error, source.dataset, source.name, "read")


def clip_of(source: Source) -> Clip:
    """An audio file, or a stretch of one, as one clip; `AudioError` if it has changed or cannot be fetched."""
    key = make_key(source.dataset, source.key_path)
    return Clip(key, source.audio(), source.dataset, source.name, stretch=source.stretch)


def _clips_of_tar(source: Source) -> Iterator[Clip | Reject]:
    # As a list, the path is not searched for patterns; without a splitter, a launcher's RANK leaves nothing out.
    tar = webdataset.WebDataset([str(source.location)], shardshuffle=False, empty_check=False, nodesplitter=None)
    try:
        for sample in tar:
            yield _clip_in_tar(source, sample)
        if not _has_end_mark(source.location):
            raise EOFError("it has no end mark and may be cut off")
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        message = f"The tar {source.where} cannot be read to its end: {error}."
        yield Reject.of(AudioError(message, "unreadable"), source.dataset, source.name, "read")


def _clip_in_tar(source: Source, sample: dict[str, Any]) -> Clip | Reject:
    key = sample["__key__"]
    suffixes = [name for name in sample if is_audio_path(f"x.{name}")]
    if len(suffixes) != 1:
        message = f"The sample {key} in {printable(source.location)} has {len(suffixes)} audio files, not one."
        return Reject.of(AudioError(message, "unsupported"), source.dataset, f"{source.name}/{key}", "read")
    described = _description(sample.get("json"))
    return Clip(
        # Keys of other makers are unique in their tar at most.
        id=key if described else make_key(source.dataset, f"{source.path}/{key}"),
        audio=sample[suffixes[0]],
        dataset=described.dataset if described else source.dataset,
        source=described.source if described else f"{source.name}/{key}.{suffixes[0]}",
        sample=described,
    )


def _has_end_mark(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-END_MARK, os.SEEK_END)
        return not any(file.read())


def _description(data: bytes | None) -> Sample | None:
    """The sample's JSON if it is of our form; tars of other makers carry JSON of their own."""
    if data is None:
        return None
    try:
        return Sample.model_validate_json(data)
    except ValidationError:
        return None
