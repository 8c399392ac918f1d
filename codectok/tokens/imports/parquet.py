"""Parquet with a column of lists of codes, and columns of keys and labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codectok.errors import AudioError, first_line
from codectok.parquet_damage import PARQUET_DAMAGE
from codectok.reading import fault_of, reading
from codectok.sources.opening import open_source
from codectok.sources.parquet.rows import BUFFER_BYTES, RowGroup, batches_of, groups_in_range
from codectok.sources.source import Source

from .rows import FieldNames, ForeignRow
from .shapes import MAX_AXES, reshaped

# Of Arrow, and of values that Python cannot hold.
DAMAGE = (pa.ArrowException, ValueError, OverflowError)


def rows_of_parquet(source: Source, names: FieldNames) -> Iterator[ForeignRow]:
    """Yield the rows of the row groups that begin in the source's range."""
    try:
        with (
            open_source(source) as opened,
            pq.ParquetFile(opened, pre_buffer=False, buffer_size=BUFFER_BYTES) as file,
        ):
            schema = file.schema_arrow
            try:
                codes = _codes_column(schema, names)
            except AudioError as error:
                if not source.first_byte:  # once for all ranges
                    yield ForeignRow("", None, error)
                return
            # The first of several columns of one name.
            labels = [name for name in dict.fromkeys(schema.names) if name != codes and _is_label(schema, name)]
            others = tuple(name for name in dict.fromkeys(schema.names) if name != codes and name not in labels)
            for group in groups_in_range(file, source):
                batches = batches_of(file, opened, group, [codes, *labels], source.max_row_bytes)
                yield from _rows_of_group(batches, group, source, codes, names, others)
    except AudioError as error:
        yield ForeignRow("", None, error)
    except (OSError, *PARQUET_DAMAGE) as error:
        reason = fault_of(error, source.where, DAMAGE).reason
        message = f"The Parquet file {source.where} cannot be read: {first_line(error)}."
        yield ForeignRow("", None, AudioError(message, reason))


def _rows_of_group(
    batches: Iterator[pa.RecordBatch],
    group: RowGroup,
    source: Source,
    codes: str,
    names: FieldNames,
    others: tuple[str, ...],
) -> Iterator[ForeignRow]:
    """Yield the rows of a row group; damage costs the rest of the group."""
    number = group.first_row
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:
            reason = fault_of(error, source.where, DAMAGE).reason
            last = group.first_row + group.n_rows - 1
            message = f"Rows {number} to {last} of {source.where} cannot be read: {first_line(error)}."
            yield ForeignRow(str(number), None, AudioError(message, reason))
            return
        if batch is None:
            return
        for place in range(len(batch)):
            yield _row(batch, place, number + place, codes, names, others)
        number += len(batch)


def _row(
    batch: pa.RecordBatch, place: int, number: int, codes: str, names: FieldNames, others: tuple[str, ...]
) -> ForeignRow:
    where = f"Row {number}"
    key: str | None = None
    try:
        with reading(where, DAMAGE):
            values = {name: batch[name][place].as_py() for name in batch.schema.names if name != codes}
            span, left_out = names.span_of({name: value for name, value in values.items() if value is not None}, where)
            key = span.id
            array = _array(batch[codes][place])
            return ForeignRow(str(number), key, array, span=span, left_out=(*left_out, *others))
    except AudioError as error:
        return ForeignRow(str(number), key, error)


def _codes_column(schema: pa.Schema, names: FieldNames) -> str:
    name = names.codes_in(schema.names)
    if schema.names.count(name) > 1:
        raise AudioError(f"It has several columns {name!r}.", "unsupported")
    kind, depth = schema.field(name).type, 0
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    if not 0 < depth <= MAX_AXES or not pa.types.is_integer(kind):
        raise AudioError(f"Its column {name!r} holds {schema.field(name).type}, not lists of integers.", "unsupported")
    return name


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_label(schema: pa.Schema, name: str) -> bool:
    if schema.names.count(name) > 1:
        return False
    kind = schema.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_floating)
    return any(test(kind) for test in (*tests, pa.types.is_boolean))


def _array(value: pa.Scalar) -> np.ndarray:
    """Return the codes of a row, without an object of Python for each."""
    if not value.is_valid:
        raise AudioError("It has no codes.", "empty")
    values = value.values
    n_rows, lengths = len(values), []
    while _is_list(values.type):
        if values.null_count:
            raise AudioError("It has a frame without codes.", "invalid_row")
        # A fixed size is that of all.
        size = values.type.list_size if pa.types.is_fixed_size_list(values.type) else None
        lengths.append(np.full(len(values), size) if size is not None else values.value_lengths().to_numpy())
        values = values.flatten()
    if values.null_count:
        raise AudioError("It has a code that is missing.", "invalid_row")
    return reshaped(values.to_numpy(zero_copy_only=False), n_rows, lengths)
