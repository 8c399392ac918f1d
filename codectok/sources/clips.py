"""The clips of a source: one for an audio file or a span of it, one for each sample of a tar or row of Parquet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from codectok.errors import AudioError
from codectok.keys import make_key
from codectok.tokens.clips import Clip

from .containers import clips_of_parquet, clips_of_tar
from .rejects import Reject
from .source import CONTAINERS, Source


def clips_of(source: Source) -> Iterator[Clip | Reject | None]:
    """The clips in `source`, in order; rejects for what cannot be read, None for a file without audio in it."""
    if source.kind in CONTAINERS:
        found = clips_of_tar(source) if source.kind == "tar" else clips_of_parquet(source)
        yield from itertools.islice(found, source.first_clip, source.last_clip)
        return
    try:
        yield clip_of(source)
    except AudioError as error:
        yield Reject.of(error, source.dataset, source.name, "read")


def clip_of(source: Source) -> Clip:
    """An audio file, or a span of one, as one clip; `AudioError` if it has changed or cannot be fetched."""
    key = make_key(source.dataset, source.key_path)
    return Clip(key, source.audio(), source.dataset, source.name, span=source.span)
