"""Texts and JSON beside the audio of a sample: which of them are read, and how."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from codectok.audio.spans import Span
from codectok.errors import AudioError
from codectok.sources.encodings import UndecodableError, decode_text
from codectok.sources.labels import NAMES, described_by, squeezed

# By the last suffix; the first is preferred.
TEXT_SUFFIXES = ("transcript", "text", "txt", "lab")
# By the part before the last suffix, as in `a.normalized.txt`; others stand between these two groups.
FIRST_TEXTS = ("", "normalized", "norm", "text", "transcript", "transcription", "sentence")
LAST_TEXTS = ("raw", "original")
# A label file of HTK: times, then a phone or word.
_TIMED_LINE = re.compile(r"\d+[ \t]+\d+[ \t]+\S")


def chosen_text(members: Mapping[str, bytes]) -> str | None:
    """The suffix of the member whose text is read; None without any."""
    ranked: list[tuple[int, int, str]] = [
        (*rank, name)
        for name, data in members.items()
        if (rank := _rank(name)) is not None and not (name.endswith("lab") and _is_timed(data))
    ]
    return min(ranked)[2] if ranked else None


def chosen_json(members: Mapping[str, bytes]) -> str | None:
    """The suffix of the member whose JSON is read: `json`, or the first by name that ends in it; None without any."""
    names = sorted((name.count("."), name) for name in members if name.rpartition(".")[2] == "json")
    return names[0][1] if names else None


def described_by_members(
    members: Mapping[str, bytes], text: str | None, description: str | None, where: str, encoding: str | None
) -> tuple[Span, tuple[str, ...]]:
    """A whole clip, described by the members with the suffixes `text` and `description`.

    The text of a text file is preferred to that of the JSON.

    Args:
        members: by suffix.
        text, description: from `chosen_text` and `chosen_json`.
        where: the sample, for messages.
        encoding: of texts without a byte-order mark; None for UTF-8.

    Returns:
        The clip, and the names of the fields that cannot be kept.

    Raises:
        AudioError: a member is not text or JSON ("unreadable"), or its fields cannot be used ("unsupported").
    """
    values = {} if description is None else _object(members[description], f"{where} has {description!r}", encoding)
    if text is not None:
        words = _decoded(members[text], f"{where} has {text!r}", encoding).strip()
        if words:
            values = _with_text(values, words)
    return described_by(values, where)


def _rank(name: str) -> tuple[int, int] | None:
    middle, _, last = name.rpartition(".")
    if last not in TEXT_SUFFIXES:
        return None
    group = FIRST_TEXTS.index(middle) if middle in FIRST_TEXTS else len(FIRST_TEXTS) + (middle in LAST_TEXTS)
    return group, TEXT_SUFFIXES.index(last)


def _is_timed(data: bytes) -> bool:
    lines = data.decode("latin-1").split("\n")
    return all(_TIMED_LINE.match(line) for line in lines if line.strip()) and any(line.strip() for line in lines)


def _with_text(values: dict[str, Any], words: str) -> dict[str, Any]:
    """Put `words` before all texts in `values`, the same of which are dropped and others kept under their names."""
    texts = {squeezed(name) for name in NAMES["text"]}
    others = {name: value for name, value in values.items() if squeezed(name) not in texts or value != words}
    first = {name: value for name, value in others.items() if squeezed(name) == "text"}
    rest = {name: value for name, value in others.items() if name not in first}
    return {**rest, **{f"json_{name}": value for name, value in first.items()}, "text": words}


def _decoded(data: bytes, where: str, encoding: str | None) -> str:
    try:
        return decode_text(data, encoding)
    except UndecodableError as error:
        raise AudioError(f"{where}, which cannot be read: {error}.", "unreadable") from None


def _object(data: bytes, where: str, encoding: str | None) -> dict[str, Any]:
    if not data:
        return {}
    text = _decoded(data, where, encoding)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise AudioError(f"{where}, which is not valid JSON.", "unreadable") from None
    if not isinstance(found, dict):
        raise AudioError(f"{where}, which is not a JSON object.", "unreadable")
    return found
