"""Checks that a clip can be written: its texts are whole characters, its labels are shallow, its times are numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from codectok.errors import AudioError
from codectok.extras import MAX_DEPTH, is_deep
from codectok.names import printable

from .clip import Clip


def checked(clip: Clip) -> Clip:
    """Return `clip`.

    Raises:
        AudioError: it cannot be written ("unreadable").
    """
    for name, text in _texts(clip):
        if text is not None and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise AudioError(f"The {name} of {_where(clip)} is not valid text.", "unreadable") from None
    if not (math.isfinite(clip.offset) and clip.offset >= 0):
        raise AudioError(f"The start of {_where(clip)} is not a time: {clip.offset}.", "unreadable")
    extra = clip.span.extra
    # Brackets are counted first, since parsing the labels of each clip would take long.
    if extra is not None and extra.count("[") + extra.count("{") > MAX_DEPTH and is_deep(json.loads(extra)):
        raise AudioError(f"The labels of {_where(clip)} are nested too deeply.", "unreadable")
    return clip


def _texts(clip: Clip) -> Iterator[tuple[str, str | None]]:
    yield from (("id", clip.id), ("dataset", clip.dataset), ("source", clip.source))
    for span in (clip.span, *clip.span.supervisions):
        labels = span.labels
        yield from (("id", span.id), ("text", span.text), ("further labels", span.extra))
        yield from (("language", labels.language), ("speaker", labels.speaker), ("category", labels.category))


def _where(clip: Clip) -> str:
    return printable(clip.name.encode("utf-8", "backslashreplace").decode())
