"""Supervisions of a row: timed text inside its span."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codectok.extras import extra_of, merged_extra
from codectok.sources.source import Supervision, Supervisions

from .values import TIMES, seconds_of, text_of

WORDS = ("text", "language", "speaker")
# Fields of a supervision of lhotse that are used or that say nothing of the words.
KNOWN_FIELDS = frozenset((*TIMES, *WORDS, "id", "recording_id", "channel", "alignment"))


@dataclass(frozen=True)
class ParsedSupervisions:
    """The supervisions of a row.

    Attributes:
        words: text, language and speaker of the row, as far as the supervisions say them.
        supervisions: JSON of `Supervisions`; None without any text.
        extra: further labels of the row, as a JSON object.
        left_out: names of fields that are not used.
    """

    words: dict[str, str]
    supervisions: str | None
    extra: str | None
    left_out: tuple[str, ...]


def parse_supervisions(supervisions: Any, offset: float) -> ParsedSupervisions:
    """Parse the supervisions of a row; their times count from `offset` seconds."""
    if not isinstance(supervisions, list) or not all(isinstance(one, dict) for one in supervisions):
        raise ValueError("its supervisions are not a list of objects")
    found: list[Supervision] = []
    left_out: list[str] = []
    for one in supervisions:
        start, end, duration = (seconds_of(one, name) for name in TIMES)
        start = start or 0.0
        if end is None and duration is None:
            raise ValueError("one of its supervisions has neither an end nor a duration")
        end = start + (duration or 0.0) if end is None else end
        words = {name: text_of(one, name) for name in WORDS}
        extra, others = extra_of(one, KNOWN_FIELDS)
        left_out += [*others, *(["alignment"] if one.get("alignment") else [])]
        found.append(Supervision(start=max(0.0, offset + start), end=offset + end, extra=extra, **words))
    found.sort(key=lambda one: one.start)
    texts = [one.text for one in found if one.text]
    known = {"text": " ".join(texts)} if texts else {}
    for name in ("language", "speaker"):
        values = {getattr(one, name) for one in found}
        if len(values) == 1 and None not in values:
            known[name] = values.pop()
    timed = Supervisions(tuple(found)).model_dump_json(exclude_none=True) if texts else None
    return ParsedSupervisions(known, timed, merged_extra([one.extra for one in found]), tuple(left_out))
