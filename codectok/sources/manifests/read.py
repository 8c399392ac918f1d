"""Reads manifests, on this machine or in a store."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from codectok.errors import InputError
from codectok.names import printable
from codectok.storage import is_url, open_file_system

from .json_lines import json_rows
from .row import ManifestRow, parse_row
from .tables import table_rows

MANIFEST_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz")


def read_manifest(root: str, name: str) -> Iterator[ManifestRow]:
    """Yield the rows of the manifest `name` in the folder or at the URL `root`: JSON lines, or a table with a header.

    Raises:
        InputError: the manifest cannot be read, or a line has no path or impossible times; the message has its number.
    """
    where = f"{root}/{name}" if is_url(root) else printable(Path(root) / name)
    try:
        with _open(root, name) as file:
            lines = json_rows(file) if ".jsonl" in name.lower() else table_rows(file, name)
            for number, values in lines:
                try:
                    row = parse_row(values)
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
