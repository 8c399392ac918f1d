"""Reads manifests, on this machine or in a store."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from codectok.errors import InputError
from codectok.names import printable
from codectok.sources.encodings import text_lines
from codectok.storage import is_url, open_file_system

from .json_lines import json_rows
from .row import ManifestRow, parse_row
from .tables import table_rows

MANIFEST_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz")


def read_manifest(
    root: str, name: str, encoding: str | None = None, leave_out: Callable[[str], None] | None = None
) -> Iterator[ManifestRow]:
    """Yield the rows of the manifest `name` in the folder or at the URL `root`: JSON lines, or a table with a header.

    Args:
        root: folder or URL.
        name: of the manifest.
        encoding: of a manifest without a byte-order mark; None for UTF-8.
        leave_out: receives the name of each field that cannot be kept.

    Raises:
        InputError: the manifest cannot be read, or a line has no path or impossible times; the message has its number.
    """
    where = f"{root}/{name}" if is_url(root) else printable(Path(root) / name)
    try:
        with _open(root, name) as file:
            texts = text_lines(file, encoding)
            lines = json_rows(texts) if ".jsonl" in name.lower() else table_rows(texts, name)
            for number, values in lines:
                try:
                    if isinstance(values, ValueError):
                        raise values
                    row = parse_row(values, leave_out)
                except ValueError as error:
                    raise InputError(f"Line {number} of {where} cannot be used: {error}.") from None
                yield row
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"The manifest {where} cannot be read: {error}.") from None
    except OSError as error:
        raise InputError(f"The manifest {where} cannot be read: {error.strerror or error}.") from None


def _open(root: str, name: str) -> BinaryIO:
    raw: BinaryIO
    if is_url(root):
        files, path = open_file_system(f"{root}/{name}")
        raw = files.open(path, "rb")
    else:
        raw = (Path(root) / name).open("rb")
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if name.lower().endswith(".gz") else raw
