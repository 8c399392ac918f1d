"""Order of pages and stimuli: a pure function of the seed and the listener."""

from __future__ import annotations

import hashlib

from .stored_test import ListeningTest, Page


def pages_of(test: ListeningTest, listener: str) -> list[Page]:
    """Return the pages in the order of a listener: one kind after another, the clips of each shuffled."""
    return [
        page
        for kind in test.kinds
        for page in sorted(
            (page for page in test.pages.values() if page.kind == kind),
            key=lambda page: _rank(test, listener, page.id),
        )
    ]


def stimuli_of(test: ListeningTest, listener: str, page: Page) -> list[str]:
    """Return the ids of a page's stimuli in the order of a listener."""
    names = sorted(page.clip.stimuli, key=lambda name: _rank(test, listener, f"{page.id}\0{name}"))
    return [page.clip.stimuli[name] for name in names]


def _rank(test: ListeningTest, listener: str, item: str) -> bytes:
    return hashlib.sha256(f"{test.seed}\0{listener}\0{item}".encode("utf-8", "surrogatepass")).digest()
