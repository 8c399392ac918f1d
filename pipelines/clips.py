"""The clips of a source: one for an audio file or a stretch of it, one for each sample of a tar or row of Parquet."""

from __future__ import annotations

from collections.abc import Iterator

from codectok.errors import AudioError
from codectok.keys import make_key
from codectok.tokens.clips import Clip

from .containers import clips_of_parquet, clips_of_tar
from .rejects import Reject
from .sources import Source


def clips_of(source: Source) -> Iterator[Clip | Reject | None]:
    """The clips in `source`, in order; rejects for what cannot be read, None for a file without audio in it."""
    if source.kind == "tar":
        yield from clips_of_tar(source)
        return
    if source.kind == "parquet":
        yield from clips_of_parquet(source)
        return
    try:
        yield clip_of(source)
    except AudioError as error:
        yield Reject.of(error, source.dataset, source.name, "read")


def clip_of(source: Source) -> Clip:
    """An audio file, or a stretch of one, as one clip; `AudioError` if it has changed or cannot be fetched."""
    key = make_key(source.dataset, source.key_path)
    return Clip(key, source.audio(), source.dataset, source.name, stretch=source.stretch)
