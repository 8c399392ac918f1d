"""Text files of a corpus, on this machine or in a store."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO, cast

from codectok.names import printable
from codectok.sources.encodings import StrictText, encoding_of
from codectok.storage import is_url, open_file_system

LONGEST_START = 1 << 16


def place_of(root: str, name: str) -> str:
    """Full path or URL of a file, for messages."""
    return f"{root}/{name}" if is_url(root) else printable(Path(root) / name)


def open_binary(root: str, name: str) -> BinaryIO:
    """Open the file `name` in the folder or at the URL `root`; gzip is unpacked."""
    if is_url(root):
        files, path = open_file_system(f"{root.rstrip('/')}/{name}")
        raw = files.open(path, "rb")
    else:
        raw = (Path(root) / name).open("rb")
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if name.lower().endswith(".gz") else raw


def open_text(root: str, name: str, encoding: str | None = None) -> StrictText:
    """Open a text file in the encoding of its byte-order mark, in `encoding`, or in UTF-8; line ends stay as they are.

    Raises:
        UndecodableError: the file seems to be in UTF-16 without a mark.
    """
    return StrictText(open_binary(root, name), encoding)


def first_line(root: str, name: str, encoding: str | None = None) -> str:
    """First line that is not empty, or its beginning; "" if the file cannot be read as text."""
    try:
        with open_binary(root, name) as file:
            data = file.read(LONGEST_START)
    except (OSError, EOFError, ValueError):
        return ""
    lines = data.decode(encoding_of(data, encoding), "replace").splitlines()  # to recognise a layout, not for texts
    return next((line for line in lines if line.strip()), "")
