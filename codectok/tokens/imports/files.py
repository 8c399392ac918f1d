"""Files with the codes of one clip: `.npy` arrays, and `.audio` files of UniTTS."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from tokenize import TokenError

import numpy as np

from codectok.audio.spans import Span
from codectok.errors import AudioError
from codectok.extras import text_of_label
from codectok.reading import reading
from codectok.sources.encodings import MAX_LINE_BYTES
from codectok.sources.opening import open_source
from codectok.sources.source import Source
from codectok.sources.stores.web import too_large
from codectok.tokens.vocabulary import DEFAULT_OFFSET

from .rows import ForeignRow
from .shapes import array_of

NPY, AUDIO = ".npy", ".audio"
# Larger arrays are not the codes of a clip: 4 million frames of 32 codebooks of 64 bits.
MAX_ARRAY_BYTES = 1 << 30


def rows_of_file(source: Source) -> Iterator[ForeignRow]:
    """Yield the row of a `.npy` or `.audio` file, in the range of the file that holds its first byte."""
    if source.first_byte:
        return
    key = source.name[: -len(NPY if source.path.lower().endswith(NPY) else AUDIO)]
    row = ForeignRow("", key, np.zeros(0, np.int64))
    try:
        with reading(source.where):
            if source.path.lower().endswith(NPY):
                yield replace(row, codes=_array(source))
            else:
                yield _unitts(source, row)
    except AudioError as error:
        yield replace(row, codes=error)


def _array(source: Source) -> np.ndarray:
    """Read an array of integers; nothing is unpickled or allocated before header and size agree."""
    limit = MAX_ARRAY_BYTES if source.max_file_bytes is None else source.max_file_bytes
    data = _bytes(source, limit)
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"the version {version[0]}.{version[1]} of its header is not that of an array of numbers")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, TokenError) as error:
        # NumPy parses the header as Python.
        raise AudioError(f"{source.where} is not an array of NumPy: {_line(error)}.", "unreadable") from None
    if dtype.hasobject or dtype.fields or not np.issubdtype(dtype, np.integer):
        raise AudioError(f"{source.where} holds {str(dtype)[:40]}, not integers.", "invalid_row")
    count = 1
    for size in shape:
        count *= size
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(data) - file.tell():
        raise AudioError(f"{source.where} is cut off, or its header is wrong.", "unreadable")
    values = np.frombuffer(data, dtype, count, file.tell()) if count else np.zeros(0, dtype)
    return values.reshape(shape, order="F" if by_columns else "C")


def _unitts(source: Source, row: ForeignRow) -> ForeignRow:
    """Read the first line of a `.audio` file, as UniTTS does."""
    with open_source(source) as file:
        line = file.readline(MAX_LINE_BYTES)
    if len(line) == MAX_LINE_BYTES:
        raise too_large(f"The first line of {source.where}", len(line), MAX_LINE_BYTES - 1)
    try:
        value: object = json.loads(line)
    except ValueError as error:
        raise AudioError(f"The first line of {source.where} is not valid JSON: {_line(error)}.", "unreadable") from None
    if not isinstance(value, dict) or "audio_token" not in value:
        raise AudioError(f"{source.where} has no 'audio_token'.", "invalid_row")
    path = text_of_label(value.get("audio_path"))
    extra = None if path is None else json.dumps({"audio_path": path})
    return replace(row, codes=array_of(value["audio_token"]), offset=DEFAULT_OFFSET, span=Span(extra=extra))


def _bytes(source: Source, limit: int) -> bytes:
    with open_source(source) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise too_large(source.where, source.size or len(data), limit)
    return data


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:100].rstrip(".")
