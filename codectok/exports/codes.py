"""Token tables in the forms that other programs read: Parquet with `audio_codes`, JSON lines, or `.npy` files."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from codectok.names import readable_name
from codectok.tokens.table import TokenRow, hash_of_id

LABELS = ("text", "language", "speaker", "category")


def audio_codes_schema(n_codebooks: int) -> pa.Schema:
    """Return the schema of Parquet: flat lists of codes for one codebook, else a list for each frame."""
    codes = pa.list_(pa.int64()) if n_codebooks == 1 else pa.list_(pa.list_(pa.int64()))
    fields = [pa.field("__key__", pa.string(), nullable=False), pa.field("audio_codes", codes, nullable=False)]
    return pa.schema([*fields, *(pa.field(name, pa.string()) for name in LABELS)])


def audio_codes_row(row: TokenRow) -> dict[str, Any]:
    """Return a row of `audio_codes_schema`."""
    return {"__key__": row.id, "audio_codes": _lists(row), **{name: getattr(row, name) for name in LABELS}}


def json_line(row: TokenRow) -> str:
    """Return a line of JSON with the key, the tokens, and the labels that are known."""
    labels = {name: getattr(row, name) for name in LABELS if getattr(row, name) is not None}
    return json.dumps({"key": row.id, "tokens": _lists(row), **labels}, ensure_ascii=False) + "\n"


def file_name(table: str, row: TokenRow, suffix: str) -> str:
    """Return the name of a row's own file: a readable start, and a hash of the table and the id.

    Rows may differ only in their table, or in characters that file names cannot have.
    """
    return f"{readable_name(row.id)}-{hash_of_id(f'{table}/{row.id}'):016x}{suffix}"


def _lists(row: TokenRow) -> list[Any]:
    codes: np.ndarray = row.codes[:, 0] if row.codes.shape[1] == 1 else row.codes
    return list(codes.tolist())
