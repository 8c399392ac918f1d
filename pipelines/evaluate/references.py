"""Lists of originals and reconstructions for other tools of evaluation, such as VERSA."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from codectok.storage import Storage

from .facts import EvaluationFacts, tables_of_units
from .files import LIST_SUFFIX, ORIGINAL, REFERENCES_FILE, TEXTS_FILE, audio_name

_SPACES = re.compile(r"\s+")
# Of ids that keys of the lists keep; others, such as spaces, become %20.
KEY_CHARACTERS = "/-_.~:@+,()"


@dataclass(frozen=True)
class _Reference:
    key: str
    text: str | None
    audio: dict[str, str]


def lists_of_references(storage: Storage, facts: EvaluationFacts) -> dict[str, bytes]:
    """Return the contents of the lists of all audio by name, with paths relative to the output.

    `references.jsonl` has a line for each clip: its key, the path of the original and of each reconstruction, and its
    text. For each of them, and for the original, a list in Kaldi's form (`NAME.scp`) holds key and path, and `text`
    holds key and text.
    """
    lists = {system: f"{system}{LIST_SUFFIX}" for system in (ORIGINAL, *facts.codecs)}
    names = [REFERENCES_FILE, TEXTS_FILE, *lists.values()]
    contents = {name: bytearray() for name in names}
    for reference in _references(storage, facts):
        line = {"key": reference.key, **reference.audio}
        if reference.text is not None:
            line["text"] = reference.text
            contents[TEXTS_FILE] += f"{reference.key} {_SPACES.sub(' ', reference.text).strip()}\n".encode()
        contents[REFERENCES_FILE] += json.dumps(line, ensure_ascii=False).encode() + b"\n"
        for system, path in reference.audio.items():
            contents[lists[system]] += f"{reference.key} {path}\n".encode()
    return {name: bytes(content) for name, content in contents.items()}


def _references(storage: Storage, facts: EvaluationFacts) -> Iterator[_Reference]:
    n_systems = len(facts.systems)
    for unit, table in tables_of_units(storage):
        rows = table.select(["id", "text", "system", "n_frames"]).to_pylist()
        for first in range(0, len(rows), n_systems):
            number = first // n_systems
            made = [row["system"] for row in rows[first : first + n_systems] if row["n_frames"] is not None]
            audio = {system: audio_name(unit, number, system) for system in (ORIGINAL, *made)}
            yield _Reference(quote(rows[first]["id"], safe=KEY_CHARACTERS), rows[first]["text"], audio)
