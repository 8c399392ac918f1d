"""Header of a plan: verb, options and arguments of a job, and the totals of its listings."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import JsonValue

from codectok.config import StrictModel
from codectok.path_text import PathText
from codectok.sources.listing.arguments import Argument
from codectok.sources.unused import UnusedCounts, UnusedEntry


class Generation(StrictModel):
    """Totals of one listing.

    For each argument, `ignored` counts the files that are not read, `unused` all parts that are not used, and `layouts`
    the files by which a corpus was recognised.
    """

    arguments: tuple[Argument, ...]
    roots: dict[str, PathText]
    sources: int
    units: int
    ignored: tuple[int, ...]
    unused: tuple[UnusedCounts, ...] = ()
    layouts: tuple[dict[str, UnusedEntry], ...] = ()
    listing_sha256: str


class PlanHeader(StrictModel):
    """Contents of `plan.json`; `bytes_version` is the version of the job's code."""

    format: Literal["codectok.plan"] = "codectok.plan"
    version: Literal[1] = 1
    verb: str
    bytes_version: int
    options: dict[str, JsonValue]
    generations: tuple[Generation, ...]

    @property
    def hash(self) -> str:
        """Hash of everything that decides the output; stays the same when a corpus is moved."""
        described = self.model_dump(mode="json", exclude={"generations": {"__all__": {"roots", "unused", "layouts"}}})
        return hashlib.sha256(repr(_sorted(described)).encode()).hexdigest()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((key, _sorted(item)) for key, item in value.items())
    return [_sorted(item) for item in value] if isinstance(value, list | tuple) else value
