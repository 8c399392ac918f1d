"""Supervisions of a row: timed text inside its span."""

from __future__ import annotations

from typing import Any

from codectok.sources.source import Supervision, Supervisions

from .values import TIMES, seconds_of, text_of


def parse_supervisions(supervisions: Any, offset: float) -> dict[str, str]:
    """Text, labels and supervisions (as JSON) of a row; times of `supervisions` count from `offset` seconds."""
    if not isinstance(supervisions, list) or not all(isinstance(one, dict) for one in supervisions):
        raise ValueError("its supervisions are not a list of objects")
    found: list[Supervision] = []
    # By their starts, also where these lie before the file.
    for one in sorted(supervisions, key=lambda one: seconds_of(one, "start") or 0.0):
        start, end, duration = (seconds_of(one, name) for name in TIMES)
        start = start or 0.0
        if end is None and duration is None:
            raise ValueError("one of its supervisions has neither an end nor a duration")
        end = start + (duration or 0.0) if end is None else end
        words = {name: text_of(one, name) for name in ("text", "language", "speaker")}
        found.append(Supervision(start=max(0.0, offset + start), end=offset + end, **words))
    texts = [one.text for one in found if one.text]
    known = {"text": " ".join(texts)} if texts else {}
    for name in ("language", "speaker"):
        values = {getattr(one, name) for one in found}
        if len(values) == 1 and None not in values:
            known[name] = values.pop()
    if texts:
        known["supervisions"] = Supervisions(tuple(found)).model_dump_json(exclude_none=True)
    return known
