"""Lists of originals and reconstructions for other tools of evaluation, such as VERSA."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from codectok.storage import Storage

from .files import LIST_SUFFIX, ORIGINAL, REFERENCES_FILE, TEXTS_FILE, audio_name
from .setting import Setting, tables_of_units

_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class _Reference:
    key: str
    text: str | None
    audio: dict[str, str]


def write_references(storage: Storage, setting: Setting) -> list[str]:
    """List the audio of all clips, with paths relative to the output, and return the names of the lists.

    `references.jsonl` has a line for each clip: its key, the path of the original and of each reconstruction, and its
    text. For each of them, and for the original, a list in Kaldi's form (`NAME.scp`) holds key and path, and `text`
    holds key and text.
    """
    lists = {system: f"{system}{LIST_SUFFIX}" for system in (ORIGINAL, *setting.codecs)}
    names = [REFERENCES_FILE, TEXTS_FILE, *lists.values()]
    contents = {name: bytearray() for name in names}
    for reference in _references(storage, setting):
        line = {"key": reference.key, **reference.audio}
        if reference.text is not None:
            line["text"] = reference.text
            contents[TEXTS_FILE] += f"{reference.key} {_SPACES.sub(' ', reference.text).strip()}\n".encode()
        contents[REFERENCES_FILE] += json.dumps(line, ensure_ascii=False).encode() + b"\n"
        for system, path in reference.audio.items():
            contents[lists[system]] += f"{reference.key} {path}\n".encode()
    for name, content in contents.items():
        storage.write(name, bytes(content))
    return names


def _references(storage: Storage, setting: Setting) -> Iterator[_Reference]:
    n_systems = len(setting.systems)
    for unit, table in tables_of_units(storage):
        rows = table.select(["id", "text", "system", "n_frames"]).to_pylist()
        for first in range(0, len(rows), n_systems):
            number = first // n_systems
            made = [row["system"] for row in rows[first : first + n_systems] if row["n_frames"] is not None]
            audio = {system: audio_name(unit, number, system) for system in (ORIGINAL, *made)}
            yield _Reference(_SPACES.sub("_", rows[first]["id"]), rows[first]["text"], audio)
