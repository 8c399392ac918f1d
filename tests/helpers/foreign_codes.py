"""Codes as other programs write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codectok.tokens.table import TokenRow


def write_npy(folder: Path, rows: Sequence[TokenRow], transposed: bool = False) -> Path:
    for row in rows:
        path = folder / f"{row.id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (row.codes.T if transposed else row.codes).astype(np.int32))
    return folder


def write_json(path: Path, rows: Sequence[TokenRow], nested: bool) -> Path:
    lines = [
        {"key": row.id, "tokens": (row.codes if nested else row.codes.reshape(-1)).tolist(), "text": row.text}
        for row in rows
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_parquet(path: Path, rows: Sequence[TokenRow], kind: pa.DataType, group: int = 8) -> Path:
    nested = pa.types.is_list(kind.value_type) or pa.types.is_large_list(kind.value_type)
    codes = [(row.codes if nested else row.codes.reshape(-1)).tolist() for row in rows]
    table = pa.table(
        {
            "__key__": [row.id for row in rows],
            "audio_codes": pa.array(codes, kind),
            "text": [row.text for row in rows],
        }
    )
    pq.write_table(table, path, row_group_size=group)
    return path
