"""Text and labels of clips, under the names that other tools give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codectok.audio.spans import Labels, Span

TEXTS = ("text", "transcription", "transcript", "sentence", "normalized_text")
LANGUAGES, SPEAKERS, CATEGORIES = ("language", "lang", "locale"), ("speaker", "speaker_id"), ("category",)
IDS = ("id", "utt_id", "segment_id")


def span_of(values: Mapping[str, Any]) -> Span:
    """A whole clip with the id, text and labels in `values`, a sample's JSON or a row of Parquet."""

    def first(names: tuple[str, ...]) -> str | None:
        found = (values.get(name) for name in names)
        return next((str(value) for value in found if isinstance(value, str | int) and str(value)), None)

    return Span(id=first(IDS), text=first(TEXTS), labels=Labels(first(LANGUAGES), first(SPEAKERS), first(CATEGORIES)))
