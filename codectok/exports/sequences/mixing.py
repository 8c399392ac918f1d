"""Mixing the documents of several sources by weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from .documents import Document

Until = Literal["first", "last"]
Stream = Callable[[bool], Iterator[Document]]
"""Begins a source anew; it is told whether for another time."""


def mix(streams: Mapping[str, Stream], weights: Mapping[str, float] | None, until: Until) -> Iterator[Document]:
    """The documents of all `streams`: one stream after the other, or so that their tokens are as their `weights`.

    The next document is always of the stream that is furthest behind its weight, so that the shares hold from the
    beginning on, to within a document. With `until` "first" the mixture ends where a stream does, and what is left of
    the others is not used; with "last" shorter streams begin again until each has come to its end.
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
                del running[name]  # nothing is in it
                if until == "last":
                    continue
            if until == "first" or ended.issuperset(running):
                return
            running[name] = streams[name](True)
            continue
        tokens[name] += len(document.ids)
        yield document
