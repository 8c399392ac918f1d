"""Manifests: lists of files or stretches of them, with what is known of each."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from codectok.errors import InputError
from codectok.names import printable
from codectok.storage import is_url, open_file_system

from .sources import Part, Parts

MANIFEST_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
# Names that other tools give to the same columns.
SYNONYMS = {
    "path": ("audio_filepath", "audio_path", "file", "wav", "filename"),
    "start": ("offset",),
    "language": ("lang",),
}


class ManifestRow(BaseModel):
    """A line of a manifest; times in seconds, the path relative to the manifest's folder or absolute."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)

    path: str = Field(min_length=1)
    start: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    end: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    id: str | None = None
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    category: str | None = None
    parts: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, values: dict[str, Any]) -> dict[str, Any]:
        if isinstance(values.get("recording"), dict):
            values = _of_lhotse_cut(values)
        # An empty cell of a table says nothing.
        values = {key: value for key, value in values.items() if value is not None and value != ""}
        for name, others in SYNONYMS.items():
            for other in others:
                if other in values:
                    values.setdefault(name, values[other])
        if "end" not in values and "start" in values and "duration" in values:
            values["end"] = float(values["start"]) + float(values["duration"])
        if "supervisions" in values:
            values |= _of_supervisions(values["supervisions"], float(values.get("start", 0.0)), values)
        return values

    @model_validator(mode="after")
    def _forwards(self) -> ManifestRow:
        if self.end is not None and self.end <= (self.start or 0.0):
            raise ValueError(f"its end ({self.end:g} s) is not after its start ({self.start or 0.0:g} s)")
        return self


def _of_lhotse_cut(cut: dict[str, Any]) -> dict[str, Any]:
    """A cut as lhotse writes it, whose recording is a file."""
    sources = cut["recording"].get("sources") or [{}]
    if cut.get("type") not in (None, "MonoCut", "MultiCut") or sources[0].get("type") != "file":
        raise ValueError("only cuts of recordings in files can be read, not mixed, padded or stored ones")
    if len(sources) > 1:
        raise ValueError("its recording has its channels in several files")
    return {key: cut.get(key) for key in ("id", "start", "duration", "supervisions")} | {"path": sources[0]["source"]}


def _of_supervisions(supervisions: list[dict[str, Any]], offset: float, known: dict[str, Any]) -> dict[str, Any]:
    """Text and labels from supervisions, whose times count from `offset` on; what is already `known` stays."""
    parts = []
    for one in sorted(supervisions, key=lambda one: float(one.get("start", 0.0))):
        start = float(one.get("start", 0.0))
        end = float(one["end"]) if "end" in one else start + float(one["duration"])
        words = {name: one.get(name) for name in ("text", "language", "speaker")}
        parts.append(Part(start=max(0.0, offset + start), end=offset + end, **words))
    texts = [part.text for part in parts if part.text]
    found: dict[str, Any] = {"text": " ".join(texts)} if texts else {}
    for name in ("language", "speaker"):
        values = {getattr(part, name) for part in parts}
        if len(values) == 1 and None not in values:
            found[name] = values.pop()
    if texts:
        found["parts"] = Parts(tuple(parts)).model_dump_json(exclude_none=True)
    return found | {key: value for key, value in known.items() if key in found}


def read_manifest(root: str, name: str) -> Iterator[ManifestRow]:
    """The rows of the manifest `name` in the folder or at the URL `root`: JSON lines, or a table with a header.

    Raises:
        InputError: a manifest that cannot be read, or a line without a path or with impossible times, by its number.
    """
    where = f"{root}/{name}" if is_url(root) else printable(Path(root) / name)
    try:
        with _open(root, name) as file:
            lines = _json_lines(file) if ".jsonl" in name.lower() else _table_rows(file, name)
            for number, values in lines:
                try:
                    yield ManifestRow.model_validate(values)
                except ValidationError as error:
                    first = error.errors()[0]
                    place = ".".join(str(part) for part in first["loc"])
                    problem = f"{place}: {first['msg']}" if place else first["msg"]
                    raise InputError(f"Line {number} of {where} cannot be used: {problem}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error, EOFError, gzip.BadGzipFile, ValueError) as error:
        raise InputError(f"The manifest {where} cannot be read: {error}.") from None
    except OSError as error:
        raise InputError(f"The manifest {where} cannot be read: {error.strerror or error}.") from None


def _open(root: str, name: str) -> TextIO:
    if is_url(root):
        files, path = open_file_system(f"{root}/{name}")
        raw = files.open(path, "rb")
    else:
        raw = (Path(root) / name).open("rb")
    if name.lower().endswith(".gz"):
        raw = gzip.GzipFile(fileobj=raw)
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")


def _json_lines(file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is no JSON ({error.msg})") from None
            if not isinstance(values, dict):
                raise ValueError(f"line {number} is no JSON object")
            yield number, values


def _table_rows(file: TextIO, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file, delimiter="\t" if ".tsv" in name.lower() else ",", strict=True)
    for values in reader:
        yield reader.line_num, {key: value for key, value in values.items() if key is not None}
