"""Manifests: lists of files or spans of them, with text and labels."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from codectok.errors import InputError
from codectok.names import printable
from codectok.storage import is_url, open_file_system

from .source import Supervision, Supervisions

MANIFEST_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
# Column names of other tools.
SYNONYMS = {
    "path": ("audio_filepath", "audio_path", "file", "wav", "filename"),
    "start": ("offset",),
    "language": ("lang",),
}
TIMES = ("start", "end", "duration")
LABELS = ("language", "speaker", "category")
EMPTY = (None, "")  # an empty cell of a table counts as missing


class ManifestRow(NamedTuple):
    """A line of a manifest; times in seconds, the path relative to the manifest's folder or absolute."""

    path: str
    start: float | None = None
    end: float | None = None
    id: str | None = None
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    category: str | None = None
    supervisions: str | None = None
    channel: int | None = None
    extra: str | None = None
    problem: str | None = None


def _row(values: dict[str, Any]) -> ManifestRow:
    """Parse a line; raises `ValueError` with the problem, as the end of a sentence."""
    if isinstance(values.get("recording"), dict):
        values = _of_lhotse_cut(values)
    for name, others in SYNONYMS.items():
        if values.get(name) in EMPTY:
            values[name] = next((values[other] for other in others if values.get(other) not in EMPTY), None)
    path = _text(values, "path")
    if not path:
        raise ValueError("it has no path")
    if "\0" in path:
        raise ValueError("its path cannot be a path of a file")
    start, end, duration = (_seconds(values, name, lowest=0.0) for name in TIMES)
    if end is None and duration is not None:
        end = (start or 0.0) + duration
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"its end ({end:g} s) is not after its start ({start or 0.0:g} s)")
    known: dict[str, Any] = {name: _text(values, name) for name in ("id", "text", *LABELS)}
    if values.get("supervisions") in EMPTY:
        return ManifestRow(path, start, end, **known)
    found = _of_supervisions(values["supervisions"], start or 0.0)
    supervisions = found.pop("supervisions", None)
    merged: dict[str, Any] = {name: known[name] or found.get(name) for name in known}
    return ManifestRow(path, start, end, **merged, supervisions=supervisions)


def _text(values: dict[str, Any], name: str) -> str | None:
    """A cell as text; None if it is empty."""
    value = values.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"its {name} is not text")
    if not value.isascii():
        try:
            value.encode("utf-8", "surrogateescape" if name == "path" else "strict")
        except UnicodeEncodeError:
            raise ValueError(f"its {name} is not valid text") from None
    # Many rows share a label: hold it in memory once.
    return sys.intern(value) if name in LABELS else value


def _seconds(values: dict[str, Any], name: str, lowest: float = -math.inf) -> float | None:
    """A cell as seconds; None if it is empty."""
    value = values.get(name)
    if value is None or value == "":
        return None
    try:
        time = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        time = math.nan
    if not math.isfinite(time):
        raise ValueError(f"its {name} is not a number of seconds")
    if time < lowest:
        raise ValueError(f"its {name} ({time:g} s) is below {lowest:g}")
    return time


def _of_lhotse_cut(cut: dict[str, Any]) -> dict[str, Any]:
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


def _of_supervisions(supervisions: Any, offset: float) -> dict[str, str]:
    """Text, labels and supervisions (as JSON) of a row; times of `supervisions` count from `offset` seconds."""
    if not isinstance(supervisions, list) or not all(isinstance(one, dict) for one in supervisions):
        raise ValueError("its supervisions are not a list of objects")
    found: list[Supervision] = []
    for one in supervisions:
        start, end, duration = (_seconds(one, name) for name in TIMES)
        start = start or 0.0
        if end is None and duration is None:
            raise ValueError("one of its supervisions has neither an end nor a duration")
        end = start + (duration or 0.0) if end is None else end
        words = {name: _text(one, name) for name in ("text", "language", "speaker")}
        found.append(Supervision(start=max(0.0, offset + start), end=offset + end, **words))
    found.sort(key=lambda one: one.start)
    texts = [one.text for one in found if one.text]
    known = {"text": " ".join(texts)} if texts else {}
    for name in ("language", "speaker"):
        values = {getattr(one, name) for one in found}
        if len(values) == 1 and None not in values:
            known[name] = values.pop()
    if texts:
        known["supervisions"] = Supervisions(tuple(found)).model_dump_json(exclude_none=True)
    return known


def read_manifest(root: str, name: str) -> Iterator[ManifestRow]:
    """Yield the rows of the manifest `name` in the folder or at the URL `root`: JSON lines, or a table with a header.

    Raises:
        InputError: the manifest cannot be read, or a line has no path or impossible times; the message has its number.
    """
    where = f"{root}/{name}" if is_url(root) else printable(Path(root) / name)
    try:
        with _open(root, name) as file:
            lines = _json_lines(file) if ".jsonl" in name.lower() else _table_rows(file, name)
            for number, values in lines:
                try:
                    row = _row(values)
                except ValueError as error:
                    raise InputError(f"Line {number} of {where} cannot be used: {error}.") from None
                yield row
    except (ValueError, csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
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
                raise ValueError(f"line {number} is not valid JSON ({error.msg})") from None
            except RecursionError:
                raise ValueError(f"line {number} is not valid JSON (it is nested too deeply)") from None
            if not isinstance(values, dict):
                raise ValueError(f"line {number} is not a JSON object")
            yield number, values


def _table_rows(file: TextIO, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file, delimiter="\t" if ".tsv" in name.lower() else ",", strict=True)
    for values in reader:
        yield reader.line_num, {key: value for key, value in values.items() if key is not None}
