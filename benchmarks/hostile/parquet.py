"""Mutations of Parquet files that stay Parquet: other types, values and metadata."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .mutations import damage_json

# Makers of a column of n rows with a type that no reader expects.
COLUMNS: dict[str, Callable[[int], pa.Array]] = {
    "int": lambda n: pa.array(range(n)),
    "text": lambda n: pa.array(["text"] * n),
    "null": lambda n: pa.nulls(n),
    "bool": lambda n: pa.array([True] * n),
    "float": lambda n: pa.array([float("nan")] * n),
    "negative": lambda n: pa.array([-1] * n),
    "list": lambda n: pa.array([[1, 2]] * n),
    "nested list": lambda n: pa.array([[[["a"]]]] * n),
    "struct": lambda n: pa.array([{"bytes": 1, "path": 2}] * n),
    "struct of null": lambda n: pa.array([{"bytes": None, "path": None}] * n, pa.struct([("bytes", pa.binary())])),
    "deep struct": lambda n: pa.array([{"x": {"y": {"z": [{"a": 1}]}}}] * n),
    "map": lambda n: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int64())),
    "dictionary": lambda n: pa.array(["a"] * n).dictionary_encode(),
    "binary": lambda n: pa.array([b"\xff\x00RIFF"] * n),
    "large binary": lambda n: pa.array([bytes(100)] * n, pa.large_binary()),
    "view": lambda n: pa.array(["text"] * n, pa.string()).cast(pa.large_string()),
    "decimal": lambda n: pa.array([1] * n).cast(pa.decimal128(38, 3)),
    "time": lambda n: pa.array([1] * n, pa.timestamp("us")),
    "not UTF-8": lambda n: pa.Array.from_buffers(
        pa.string(), n, [None, pa.array([b"\xff\xfe"] * n, pa.binary()).buffers()[1],
                         pa.array([b"\xff\xfe"] * n, pa.binary()).buffers()[2]]
    ),
    "huge text": lambda n: pa.array(["x" * 1_000_000] * n),
    "paths": lambda n: pa.array(["/etc/passwd", "file:///etc/passwd", "../x.wav", "\0", ""] * n)[:n],
}  # fmt: skip


def damage_table(rng: random.Random, path: Path) -> str:
    """Replace, drop, repeat or rename a column, change a value or the metadata, and write the file again."""
    table = pq.read_table(path)
    column = rng.randrange(table.num_columns)
    name = table.schema.names[column]
    kind = rng.choice(["type", "type", "type", "value", "value", "drop", "rename", "repeat", "metadata", "rows"])
    metadata: dict[bytes, bytes] = dict(table.schema.metadata or {})
    if kind == "type":
        chosen = rng.choice(list(COLUMNS))
        table = table.set_column(column, name, COLUMNS[chosen](table.num_rows))
        kind = f"type {chosen}"
    elif kind == "value":
        table = table.set_column(column, name, _with_other_value(rng, table.column(column)))
    elif kind == "drop":
        table = table.drop_columns([name])
    elif kind == "rename":
        names = [rng.choice(["", "\n", "x" * 1000, f"{name} "]) if n == name else n for n in table.schema.names]
        table = table.rename_columns(names)
    elif kind == "repeat":
        table = table.append_column(name, table.column(column))
    elif kind == "rows":
        table = rng.choice([table.slice(0, 0), table.slice(0, 1), pa.concat_tables([table] * 5)])
    elif metadata:
        key = rng.choice(list(metadata))
        metadata[key] = _other_text(rng, metadata[key])
        kind = f"metadata {key.decode(errors='replace')}"
    table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=rng.choice([1, 2, 1000]))
    return f"{kind} of {name}"


def _with_other_value(rng: random.Random, column: pa.ChunkedArray) -> pa.ChunkedArray:
    values: list[Any] = column.to_pylist()
    if not values:
        return column
    place = rng.randrange(len(values))
    kind = column.type
    if pa.types.is_integer(kind):
        values[place] = rng.choice([0, 1, (1 << (kind.bit_width - 1)) - 1, 7])
    elif pa.types.is_floating(kind):
        values[place] = rng.choice([-1.0, float("nan"), float("inf"), 1e300, 0.0])
    elif pa.types.is_string(kind):
        values[place] = rng.choice(["", "x" * 100_000, "\0", "a\nb", "../../x", "/", "é" * 300, values[0]])
    elif pa.types.is_list(kind):
        values[place] = rng.choice([[], [0] * 10_000, None, values[0][:1] if values[0] else []])
    elif pa.types.is_struct(kind):
        inner = dict(values[place] or {})
        inner[rng.choice(list(inner) or ["bytes"])] = rng.choice([None, b"", b"RIFF\xff\xff\xff\xffWAVE"])
        values[place] = inner
    else:
        values[place] = None
    try:
        return pa.chunked_array([pa.array(values, kind)])
    except (pa.ArrowException, TypeError, ValueError):
        return pa.chunked_array([pa.array([None] * len(values), kind)])


def _other_text(rng: random.Random, text: bytes) -> bytes:
    try:
        json.loads(text)
    except ValueError:
        return rng.choice([b"", b"\xff", b"{}", text[: len(text) // 2]])
    return damage_json(rng, text.decode())[1].encode("utf-8", "surrogatepass")
