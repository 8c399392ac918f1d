"""Documents that are left out."""

from __future__ import annotations

from dataclasses import dataclass

from codectok.sources.rejects import Reject


@dataclass(frozen=True)
class RejectedDocument(Reject):
    """A document that is left out, or a row with which none can begin.

    Attributes:
        pattern: drawn for it; None if it follows none. Dry runs count by it; files of rejects have no column for it.
    """

    pattern: str | None = None
