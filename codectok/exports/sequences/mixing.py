"""Mixes the documents of several sources by weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from codectok.exports.choices import Until

from .documents import Document

Stream = Callable[[bool], Iterator[Document]]
"""Starts reading a source; the argument is True if it was read before."""


def mix(streams: Mapping[str, Stream], weights: Mapping[str, float] | None, until: Until) -> Iterator[Document]:
    """Mix `streams` so that their shares of tokens follow `weights`; without weights, concatenate them.

    The next document comes from the stream that is furthest behind its weight, so that the shares hold from the
    beginning to within one document.

    Args:
        streams: sources by name.
        weights: share of each source, not normalized; None to concatenate.
        until: "first" ends the mixture with its first source and leaves the rest of the others unused; "last" repeats
            shorter sources until each has been read completely.
    """
    if weights is None:
        for stream in streams.values():
            yield from stream(False)
        return
    running = {name: stream(False) for name, stream in streams.items()}
    tokens = dict.fromkeys(running, 0)
    ended: set[str] = set()
    while running:
        name = min(running, key=lambda name: tokens[name] / weights[name])
        document = next(running[name], None)
        if document is None:
            ended.add(name)
            if not tokens[name]:
                del running[name]  # an empty source
                if until == Until.LAST:
                    continue
            if until == Until.FIRST or ended.issuperset(running):
                return
            running[name] = streams[name](True)
            continue
        tokens[name] += len(document.ids)
        yield document
