"""Checks of columns and values of token tables that are read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from codectok.errors import InputError

TABLE_REMEDY = "write the table again"


def check_columns(found: pa.Schema, expected: pa.Schema, name: str) -> None:
    """Raise `InputError` if the file `name` lacks a column of a table, or has one of another kind.

    Other programs may have written text with long offsets, or without a dictionary.
    """
    for field in expected:
        places = found.get_all_field_indices(field.name)
        if len(places) != 1:
            count = "several columns" if places else "no column"
            raise InputError(f"{name} has {count} {field.name!r}; {TABLE_REMEDY}.")
        kind = found.field(places[0]).type
        if _kind(kind) != _kind(field.type) and not (field.nullable and pa.types.is_null(kind)):
            raise InputError(
                f"{name} has a column {field.name!r} of the type {kind}, not {field.type}; {TABLE_REMEDY}."
            )


def check_values(batch: pa.RecordBatch, schema: pa.Schema, n_codebooks: int, codebook_size: int) -> None:
    """Raise a `ValueError` if a row lacks a value that all rows have, or has one that no clip can have.

    A batch may have the codes and some other columns only.
    """
    columns = set(batch.schema.names)
    for field in schema:
        if field.name in columns and not field.nullable and batch[field.name].null_count:
            raise ValueError(f"a row has no {field.name}")
    codes = batch["codes"].flatten()
    if codes.null_count:
        raise ValueError("a row has codes that are missing")
    codes = codes.to_numpy()
    if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < codebook_size:
        raise ValueError(f"a row has a code beyond {codebook_size - 1}")
    if (batch["codes"].value_lengths().to_numpy() % n_codebooks).any():
        raise ValueError(f"a row has codes of some of its {n_codebooks} codebooks only")
    for name in ("start", "duration", "n_samples"):
        if name not in columns:
            continue
        values = batch[name].to_numpy()
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"a row has an impossible {name}")


def _kind(kind: pa.DataType) -> str:
    """Name of a type, the same for types that are read alike."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "number"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list of {_kind(kind.value_type)}"
    return str(kind)
