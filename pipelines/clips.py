"""The clips of a source: one for an audio file, one for each sample of a tar."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any

import webdataset
from pydantic import ValidationError

from codectok.audio.files import is_audio_path
from codectok.errors import AudioError
from codectok.keys import make_key
from codectok.shards import Sample
from codectok.tokens.clips import Clip

from .rejects import Reject
from .sources import Source


def clips_of(source: Source) -> Iterator[Clip | Reject]:
    """The clips in `source`, in order; a damaged tar gives those before the damage, then a reject."""
    if source.kind == "audio":
        yield clip_of_file(source)
        return
    tar = webdataset.WebDataset(str(source.location), shardshuffle=False, empty_check=False)
    try:
        for sample in tar:
            yield _clip_in_tar(source, sample)
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        message = f"The tar {source.location} cannot be read to its end: {error}."
        yield Reject.of(AudioError(message, "unreadable"), source.path, "read")


def clip_of_file(source: Source) -> Clip:
    """A whole audio file as one clip."""
    return Clip(make_key(source.dataset, source.path), source.location, source.dataset, source.path)


def _clip_in_tar(source: Source, sample: dict[str, Any]) -> Clip | Reject:
    key = sample["__key__"]
    suffixes = [name for name in sample if is_audio_path(f"x.{name}")]
    if len(suffixes) != 1:
        message = f"The sample {key} in {source.location} has {len(suffixes)} audio files, not one."
        return Reject.of(AudioError(message, "unsupported"), f"{source.path}/{key}", "read")
    described = _description(sample.get("json"))
    return Clip(
        id=key,
        audio=sample[suffixes[0]],
        dataset=described.dataset if described else source.dataset,
        source=described.source if described else f"{source.path}/{key}.{suffixes[0]}",
        sample=described,
    )


def _description(data: bytes | None) -> Sample | None:
    """The sample's JSON if it is of our form; tars of other makers carry JSON of their own."""
    if data is None:
        return None
    try:
        return Sample.model_validate_json(data)
    except ValidationError:
        return None
