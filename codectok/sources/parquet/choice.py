"""Chooses the audio column of a Parquet file: by option, feature, name and type, then by content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import pyarrow as pa

from codectok.audio.files import is_audio_path
from codectok.errors import AudioError

from .columns import AUDIO, AUDIO_FEATURE, OTHER_FEATURES, Column, columns_of
from .content import is_audio

# The library datasets describes a folder of audio files by this file; the audio files are sources themselves.
FOLDER_METADATA = "metadata.parquet"

FirstValue = Callable[[Column], tuple[bytes | None, str | None]]
"""Returns the bytes and the path in the first value of a column that has any of them; None if missing."""


def choose_column(schema: pa.Schema, wanted: str | None, where: str, first_value: FirstValue) -> Column | None:
    """Choose the column with audio; None if the file has none.

    Args:
        schema: of the file.
        wanted: name of the column; None to choose by feature, name, type and content.
        where: path or address of the file, for messages.
        first_value: reads the first value of a column, if schema and names do not decide.

    Raises:
        AudioError: several columns may be meant, or `wanted` cannot be used; the message names the columns.
    """
    columns = [column for column in columns_of(schema) if column.feature not in OTHER_FEATURES]
    if wanted is not None:
        return _wanted_column(schema, columns, wanted, where)
    chosen = _choose_by_schema(columns, where)
    return chosen or _choose_by_content(columns, where, first_value)


def check_schema(schema: pa.Schema, wanted: str | None, where: str) -> None:
    """Raise the `AudioError` of `choose_column` if the schema alone decides that there will be one."""
    columns = [column for column in columns_of(schema) if column.feature not in OTHER_FEATURES]
    if wanted is not None:
        _wanted_column(schema, columns, wanted, where)
    else:
        _choose_by_schema(columns, where)


def _wanted_column(schema: pa.Schema, columns: Sequence[Column], wanted: str, where: str) -> Column | None:
    found = [column for column in columns_of(schema) if column.name == wanted]
    if len(found) == 1:
        return _single(found, where)
    if not found and not any(column.form != "path" or column.is_named for column in columns):
        return None
    names = ", ".join(schema.names)
    if wanted in schema.names:
        kind = schema.field(schema.names.index(wanted)).type
        problem = "occurs twice" if len(found) > 1 else f"has the type {kind}, which holds no audio"
        raise AudioError(f"The column {wanted!r} {problem}; the columns of {where} are {names}.", "unreadable")
    raise AudioError(f"There is no column {wanted!r} (--audio-column) among {names} in {where}.", "unreadable")


def _choose_by_schema(columns: Sequence[Column], where: str) -> Column | None:
    with_feature = [column for column in columns if column.feature == AUDIO_FEATURE]
    if with_feature:
        return _single(with_feature, where)
    return _single([column for column in columns if column.form != "path" and column.is_named], where)


def _choose_by_content(columns: Sequence[Column], where: str, first_value: FirstValue) -> Column | None:
    others = [column for column in columns if column.form in ("file", "bytes")]
    verdicts = {column: _is_audio(*first_value(column)) for column in others}
    with_audio = [column for column, verdict in verdicts.items() if verdict]
    if with_audio:
        return _single(with_audio, where)
    paths = [column for column in columns if column.form == "path"]
    named = [column for column in paths if column.is_named]
    generic = [] if where.endswith(FOLDER_METADATA) else [column for column in paths if column.is_named_path]
    for several in (named, generic):
        likely = [column for column in several if _is_path_of_audio(*first_value(column))]
        if likely:
            return _single(likely, where)
    # Columns that must hold files, although nothing shows of which kind: their rows become rejects, not nothing.
    unknown = [column for column in others if column.form == "file" and verdicts[column] is None]
    return _single([column for column in named if column.name.lower() == AUDIO] or unknown, where)


def _is_audio(data: bytes | None, path: str | None) -> bool | None:
    return is_audio(data or b"", path)


def _is_path_of_audio(data: bytes | None, path: str | None) -> bool:
    return data is None and path is not None and is_audio_path(path)


def _single(columns: Sequence[Column], where: str) -> Column | None:
    """Return the only one of `columns`, or the one that is called audio; None without columns."""
    exact = [column for column in columns if column.name.lower() == AUDIO]
    chosen = exact if len(exact) == 1 else columns
    if len(chosen) > 1:
        _refuse(columns, where)
    if chosen and chosen[0].form == "files":
        message = f"The column {chosen[0].name!r} holds lists of audio, which are not read; write a row for each"
        raise AudioError(f"{message} ({where}).", "unreadable")
    return chosen[0] if chosen else None


def _refuse(columns: Iterable[Column], where: str) -> NoReturn:
    names = [repr(column.name) for column in columns]
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    raise AudioError(
        f"The columns {listed} may hold the audio; choose one with --audio-column (in {where}).", "unreadable"
    )
