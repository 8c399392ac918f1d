"""Cuts of lhotse."""

from __future__ import annotations

from typing import Any


def values_of_cut(cut: dict[str, Any]) -> dict[str, Any]:
    """The values of a lhotse cut whose recording is a file."""
    sources = cut["recording"].get("sources") or [{}]
    if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
        raise ValueError("its recording does not say which files it is made of")
    if cut.get("type") not in (None, "MonoCut", "MultiCut") or sources[0].get("type") != "file":
        raise ValueError("only cuts of recordings in files can be read, not mixed, padded or stored ones")
    if len(sources) > 1:
        raise ValueError("its recording has its channels in several files")
    named = {key: cut.get(key) for key in ("id", "start", "duration", "supervisions")}
    return named | {"path": sources[0].get("source")}
