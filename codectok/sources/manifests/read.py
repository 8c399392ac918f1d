"""Reads manifests, on this machine or in a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codectok.errors import InputError
from codectok.names import writable
from codectok.reading import fault_of
from codectok.sources.decompression import DamagedStreamError
from codectok.sources.encodings import StrictText
from codectok.sources.labels import NAMES

from .audio_fields import take_channel
from .json_lines import is_json_array, is_open_object, json_array_rows, json_object_rows, json_rows
from .lhotse import check_times, is_of_lhotse, values_of_cut, values_of_cut_in_tar
from .lines import BadLine, Lines, line_problem
from .row import ManifestRow, parse_row
from .tables import table_rows
from .text_files import first_line, open_text, place_of
from .within import within_row

MANIFEST_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
MANIFEST_NAMES = ("wav.scp",)
PATH_NAMES = NAMES["path"][:8]  # that a message lists
# A file without a usable line up to here is not a manifest.
LINES_BEFORE_REFUSAL = 1000


Change = Callable[[dict[str, Any]], dict[str, Any] | list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class UnusedField:
    """A field of a line that is known and not used."""

    name: str
    path: str


def read_manifest(root: str, name: str, encoding: str | None = None) -> Iterator[ManifestRow]:
    """Yield the rows of the manifest `name` in the folder or at the URL `root`.

    It has JSON lines, a JSON array of objects, or a table with a header. A line that cannot be used becomes a row with
    its `problem`.

    Raises:
        InputError: the manifest cannot be read, or none of its lines can be used.
    """
    return (row for row in read_rows_and_unused(root, name, encoding=encoding) if isinstance(row, ManifestRow))


def read_rows_and_unused(
    root: str,
    name: str,
    change: Change = dict,
    encoding: str | None = None,
) -> Iterator[ManifestRow | UnusedField]:
    """Yield the rows of a manifest as `read_manifest` does, and the fields that are not used before their row.

    `change` is called with the values of each line and returns the ones to use, or a list of them for several rows.
    `encoding` is that of a manifest without a byte-order mark; None for UTF-8.
    """
    return _usable(_rows(root, name, change, encoding), place_of(root, name))


def renaming(names: Mapping[str, str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function that renames the fields of a line, unless the new name is taken."""
    return lambda values: {
        names[name] if name in names and names[name] not in values else name: value for name, value in values.items()
    }


def _usable(rows: Iterator[ManifestRow | UnusedField], where: str) -> Iterator[ManifestRow | UnusedField]:
    """Yield `rows`, or raise an `InputError` if there are some and none can be used."""
    held: list[ManifestRow | UnusedField] = []
    for row in rows:
        if isinstance(row, ManifestRow) and row.problem is None:
            yield from held
            yield row
            yield from rows
            return
        held.append(row)
        if len(held) >= LINES_BEFORE_REFUSAL:
            break
    problems = [row.problem for row in held if isinstance(row, ManifestRow) and row.problem is not None]
    if problems:
        raise InputError(
            f"{where} is not a manifest: none of its lines can be used. {problems[0]} A manifest has JSON lines, a JSON"
            f" array of objects or a table with a header; the path of the audio is read from {_listed(PATH_NAMES)}."
        )
    yield from held


def row_of_values(values: dict[str, Any], in_tar: str | None = None) -> tuple[ManifestRow, tuple[str, ...]]:
    """The row of a line, and the names of fields that are known and not used.

    Args:
        values: of the line.
        in_tar: name of the member of a tar that holds the audio of a cut, wherever the cut says that it lies.

    Raises:
        ValueError: the line cannot be used; the message is the end of a sentence.
    """
    extra: dict[str, Any] = {}
    unused: tuple[str, ...] = ()
    if in_tar is not None:
        values, channel, extra, unused = values_of_cut_in_tar(values)
        values["path"] = in_tar
    elif is_of_lhotse(values):
        check_times(values)
        values, channel, extra, unused = values_of_cut(values)
    else:
        channel = take_channel(values)
    left_out: list[str] = []
    row = within_row(parse_row(values, left_out.append))
    if channel is not None:
        row = row._replace(channel=channel)
    return with_extra(row, extra), (*unused, *left_out)


def with_extra(row: ManifestRow, labels: dict[str, Any]) -> ManifestRow:
    """The row with further labels; labels that it has stay."""
    if not labels:
        return row
    known = json.loads(row.extra) if row.extra else {}
    return row._replace(extra=json.dumps({**labels, **known}, ensure_ascii=False, sort_keys=True))


def bad_row(number: int, name: str, problem: str, values: dict[str, Any] | None = None) -> ManifestRow:
    """The row of a line that cannot be used, named after its path if it has one."""
    path = None if values is None else _path_in(values)
    return ManifestRow(path or f"{name}#{number}", problem=line_problem(number, name, problem))


def problem_of(error: Exception) -> str:
    """End of a sentence about a line whose values raise `error`; raises `error` if the machine failed."""
    if isinstance(error, ValueError):
        return writable(str(error))
    return str(fault_of(error, "it")).rstrip(".")


def _rows(root: str, name: str, change: Change, encoding: str | None) -> Iterator[ManifestRow | UnusedField]:
    where = place_of(root, name)
    try:
        with open_text(root, name, encoding) as file:
            for line in _lines(file, name, first_line(root, name, encoding)):
                if isinstance(line, BadLine):
                    yield bad_row(line.number, name, line.problem)
                    continue
                number, values = line
                changed = change(values)
                for one in changed if isinstance(changed, list) else [changed]:
                    try:
                        row, unused = row_of_values(one)
                    except Exception as error:
                        yield bad_row(number, name, problem_of(error), values)
                        continue
                    yield from (UnusedField(field, row.path) for field in unused)
                    yield row
    except InputError:
        raise
    except (ValueError, EOFError, DamagedStreamError) as error:
        raise InputError(f"The manifest {where} cannot be read: {error}.") from None
    except OSError as error:
        raise InputError(f"The manifest {where} cannot be read: {error.strerror or error}.") from None


def _lines(file: StrictText, name: str, first: str) -> Lines:
    lowered = name.lower().removesuffix(".gz")
    if lowered.endswith((".json", ".jsonl")) and is_open_object(first):
        return json_object_rows(file)
    if lowered.endswith(".jsonl"):
        return json_rows(file)
    if lowered.endswith(".json"):
        return json_array_rows(file) if is_json_array(first) else json_rows(file)
    return iter(table_rows(file, name))


def _path_in(values: dict[str, Any]) -> str | None:
    """The path in the values of a line that cannot be used; None if there is none."""
    recording = values if "sources" in values else values.get("recording")
    if isinstance(recording, dict):
        sources = recording.get("sources")
        first = sources[0] if isinstance(sources, list) and sources and isinstance(sources[0], dict) else {}
        found = first.get("source")
        return found if first.get("type") in ("file", "url") and isinstance(found, str) and _is_path(found) else None
    for name, value in values.items():
        try:
            row = parse_row({name: value})
        except ValueError:
            continue
        if _is_path(row.path):
            return row.path
    return None


def _is_path(text: str) -> bool:
    return bool(text) and "\0" not in text and not text.endswith("|")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names[:-1]) + f" or `{names[-1]}`"
