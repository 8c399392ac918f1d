"""Rows whose id another row has: a first pass lists the ids of all usable rows, then all but the first are left out."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from codectok.errors import PASSING_REASONS, AudioError, damage_errors
from codectok.names import JOB_FOLDER
from codectok.pipelines.engine.job import Decision
from codectok.pipelines.engine.output.unit_files import parts_in_order, unit_of_part
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.table_job import TableJob
from codectok.sources.kinds import Kind
from codectok.sources.rejects import Reject
from codectok.storage import Storage
from codectok.tokens.table import hash_of_id

from .rows import ImportedRows

DUPLICATES_FILE = f"{JOB_FOLDER}/duplicates.parquet"
IDS_SCHEMA = pa.schema([("id", pa.string()), ("hash", pa.uint64()), ("place", pa.string())])
DUPLICATES_SCHEMA = pa.schema([("unit", pa.int64()), ("place", pa.string()), ("same_as", pa.string())])


class IdsJob(TableJob):
    """Writes the id of each usable row.

    Args:
        rows: reads rows.
        options: of the other job.
        kinds: of sources that the other job reads.
    """

    def __init__(self, rows: ImportedRows, options: Mapping[str, JsonValue], kinds: tuple[Kind, ...]) -> None:
        super().__init__("import ids", self._ids, IDS_SCHEMA, options, kinds=kinds)
        self._imported = rows

    def _ids(self, unit: Unit, output: UnitOutput) -> Iterator[Mapping[str, Any]]:
        for imported in self._imported.of_unit(unit):
            row = imported.row
            if not isinstance(row, AudioError):
                output.read(imported.dataset, row.duration)
                output.keep(imported.dataset, row.duration)
                yield {"id": row.id, "hash": hash_of_id(row.id), "place": imported.place}
            elif row.reason in PASSING_REASONS:  # so that this pass tries again, too; the next one rejects others
                output.read(imported.dataset)
                output.reject(Reject.of(row, imported.dataset, imported.source, "read"))


def list_duplicates(ids: Storage) -> Decision:
    """List all but the first row of each id, from the output `ids` of `IdsJob`.

    Units change whose rows in the stored and the new list differ.
    """
    names = parts_in_order(ids.sizes())
    hashes = [_table(ids, name, ["hash"])["hash"].to_numpy() for name in names]
    ordered = np.sort(np.concatenate([np.zeros(0, np.uint64), *hashes]))
    repeated = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    first: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for name, found in zip(names, hashes, strict=True):
        if repeated.isdisjoint(found.tolist()):
            continue
        for row in _table(ids, name).to_pylist():
            if row["hash"] not in repeated:
                continue
            if row["id"] in first:
                rows.append({"unit": unit_of_part(name), "place": row["place"], "same_as": first[row["id"]]})
            else:
                first[row["id"]] = row["place"].replace("\0", "/")
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=DUPLICATES_SCHEMA), buffer, compression="zstd")
    before = read_duplicates(ids) if DUPLICATES_FILE in ids.sizes() else {}
    after = _by_unit(rows)
    changed = {unit for unit in before.keys() | after.keys() if before.get(unit) != after.get(unit)}
    return Decision(DUPLICATES_FILE, buffer.getvalue(), changed)


def read_duplicates(ids: Storage) -> dict[int, dict[str, str]]:
    """Read the list of duplicates: for each unit the places of its duplicates, with the place of the first row."""
    data = ids.read(DUPLICATES_FILE)
    with damage_errors(f"{ids.url}/{DUPLICATES_FILE}", "remove it, and run the same command again"):
        return _by_unit(pq.read_table(pa.BufferReader(data), schema=DUPLICATES_SCHEMA, use_threads=False).to_pylist())


def _by_unit(rows: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row["unit"], {})[row["place"]] = row["same_as"]
    return found


def _table(ids: Storage, name: str, columns: list[str] | None = None) -> pa.Table:
    data = ids.read(name)
    with damage_errors(f"{ids.url}/{name}", "remove it, and run the same command again"):
        return pq.read_table(pa.BufferReader(data), columns=columns, use_threads=False)
