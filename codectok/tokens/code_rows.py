"""Rows of token tables in batches, for readers that take the codes of many rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from codectok.errors import damage_errors

from .table import TableMetadata, TokenRow, table_schema
from .table_checks import TABLE_REMEDY, check_values


@dataclass(frozen=True)
class CodeRows:
    """Consecutive rows of a table with their codes together.

    Attributes:
        codes: integers [n_frames of all rows, n_codebooks].
        borders: the first frame of each row, and the number of frames.
        columns: values of some other columns, by name.
    """

    codes: np.ndarray
    borders: list[int]
    columns: dict[str, list[Any]]

    def row(self, number: int) -> TokenRow:
        """Return a row; `columns` must hold all columns."""
        codes = self.codes[self.borders[number] : self.borders[number + 1]].astype(np.int64)
        return TokenRow(codes=codes, **{name: values[number] for name, values in self.columns.items()})


def code_rows_of_batch(batch: pa.RecordBatch, metadata: TableMetadata, name: str) -> CodeRows:
    """Convert a batch of the file `name`, with its codes and some or all other columns.

    Raises `InputError` as `rows_of_batch` does.
    """
    with damage_errors(name, TABLE_REMEDY):
        check_values(batch, table_schema(metadata), metadata.n_codebooks, metadata.codebook_size)
        values, borders = batch["codes"].values.to_numpy(), batch["codes"].offsets.to_numpy()
        names = [other for other in batch.schema.names if other not in ("codes", "n_frames")]
        converted = {other: batch[other].to_pylist() for other in names}
    codes = values[borders[0] : borders[-1]].reshape(-1, metadata.n_codebooks)
    return CodeRows(codes, ((borders - borders[0]) // metadata.n_codebooks).tolist(), converted)
