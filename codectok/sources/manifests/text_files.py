"""Text files of a corpus, on this machine or in a store."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, cast

from codectok.names import printable
from codectok.sources.decompression import Decompressed
from codectok.sources.encodings import StrictText, encoding_of
from codectok.sources.stores.files import open_url
from codectok.storage import is_url

LONGEST_START = 1 << 16
BUFFER_BYTES = 1 << 18


def place_of(root: str, name: str) -> str:
    """Full path or URL of a file, for messages."""
    return f"{root}/{name}" if is_url(root) else printable(Path(root) / name)


def open_binary(root: str, name: str) -> BinaryIO:
    """Open the file `name` in the folder or at the URL `root`; gzip is unpacked."""
    raw = open_url(f"{root.rstrip('/')}/{name}") if is_url(root) else (Path(root) / name).open("rb")
    if not name.lower().endswith(".gz"):
        return raw
    return cast(BinaryIO, io.BufferedReader(Decompressed(raw, place_of(root, name)), BUFFER_BYTES))


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
