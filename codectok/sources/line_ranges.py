"""Lines of a file, or of a range of its bytes: a line belongs to the range that holds its first byte."""

from __future__ import annotations

from collections.abc import Iterator

from .encodings import MAX_LINE_BYTES, lines_of
from .opening import open_source
from .source import Source


def lines_in_range(source: Source) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that begin in a source's range, each with the position of its first byte.

    Raises:
        UndecodableError: a line is too long for a line of text.
        AudioError: the file has "changed".
    """
    with open_source(source) as file:
        position, end = source.first_byte or 0, source.last_byte
        if position:
            file.seek(position - 1)
            while rest := file.readline(MAX_LINE_BYTES):  # of a line that begins before
                position += len(rest)
                if rest.endswith(b"\n"):
                    break
            position -= 1
        for line in lines_of(file):
            if end is not None and position >= end:
                break
            yield position, line
            position += len(line)
