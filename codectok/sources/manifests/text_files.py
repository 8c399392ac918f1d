"""Text files of a corpus, on this machine or in a store."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from codectok.names import printable
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


def open_text(root: str, name: str) -> TextIO:
    """Open a text file in UTF-8; a byte order mark is skipped, and line ends stay as they are."""
    return io.TextIOWrapper(open_binary(root, name), encoding="utf-8-sig", newline="")


def first_line(root: str, name: str) -> str:
    """First line that is not empty, or its beginning; "" if the file cannot be read as text."""
    try:
        with open_binary(root, name) as file:
            data = file.read(LONGEST_START)
    except (OSError, EOFError, ValueError):
        return ""
    lines = data.decode("utf-8-sig", "replace").splitlines()
    return next((line for line in lines if line.strip()), "")
