"""Maps byte ranges of a source to rows of a Parquet file, and reads them.

Row r of n of a file of s bytes counts as beginning at byte s * r // n, so that ranges share the rows evenly.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from .source import Source

BATCH_ROWS = 1024
# Rows of long recordings are read fewer at a time: lists of a batch together have less than 2^31 values.
BATCH_VALUES = 1 << 24


def rows_in_range(source: Source, n_rows: int) -> range:
    """Numbers of the rows that begin in the range of a source, of a file of `n_rows`."""
    if source.first_byte is None or source.last_byte is None or not source.size:
        return range(n_rows)
    return range(-(-source.first_byte * n_rows // source.size), -(-source.last_byte * n_rows // source.size))


def batches_of_group(file: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group, in batches of bounded size."""
    described = file.metadata.row_group(group)
    values = max((described.column(number).num_values for number in range(described.num_columns)), default=0)
    rows = BATCH_VALUES * described.num_rows // max(1, values)
    size = max(1, min(BATCH_ROWS, rows))
    yield from file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False)


def batches_between(
    file: pq.ParquetFile, start: int, stop: int, columns: list[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the rows from `start` to before `stop`, each batch with the number of its first row."""
    first = 0
    for group in range(file.num_row_groups):
        end = first + file.metadata.row_group(group).num_rows
        if first < stop and end > start:
            number = first
            for batch in batches_of_group(file, group, columns):
                skipped = max(0, start - number)
                rows = batch.slice(skipped, max(0, min(stop, number + len(batch)) - number - skipped))
                if len(rows):
                    yield number + skipped, rows
                number += len(batch)
        first = end
