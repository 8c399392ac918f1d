"""`verify` compares the headers and indexes of exports with their contents."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codectok.errors import VerificationError
from codectok.exports.sequences import parquet as sequences
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.export import verify_sequences
from codectok.pipelines.export.documents import MegatronJob, RowDocuments, SequencesJob
from codectok.pipelines.export.options import DocumentOptions
from codectok.pipelines.verify.output import verify_output
from codectok.storage import open_storage
from tests.helpers.jobs import LOCAL
from tests.helpers.records import update_record
from tests.helpers.tables import metadata, rows, write

HEADER_BYTES = 34
N_ROWS = 9
# Ids of 32 and of 16 bits.
OFFSETS = {"wide": 152_064, "narrow": 500}


def export(job: type[RowDocuments], folder: Path, offset: int) -> Path:
    write(folder / "tokens" / "part-000000.parquet", rows(N_ROWS, 64, 1), metadata(64, 1))
    made = job(DocumentOptions(offset=offset, end_of_sequence="0"), [str(folder / "tokens")])
    run_job(made, made.sources.arguments, folder / "out", LOCAL)
    verify_output(open_storage(folder / "out"))
    return folder / "out"


def refused(folder: Path, path: Path, message: str) -> None:
    """Check that `verify` fails even if the record agrees with the changed file."""
    update_record(folder, path)
    with pytest.raises(VerificationError, match=message):
        verify_output(open_storage(folder))


def number(position: int, form: str, add: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        (found,) = struct.unpack_from(form, data, position)
        struct.pack_into(form, data, position, found + add)

    return change


POINTERS = HEADER_BYTES + 4 * N_ROWS
DOCUMENTS = POINTERS + 8 * N_ROWS
FORGERIES = {
    "another version": (number(9, "<Q", 1), "not an index of Megatron"),
    "another type": (number(17, "<B", 1), "not an index of Megatron"),
    "the first pointer": (number(POINTERS, "<q", 2), "does not begin where"),
    "the last pointer": (number(DOCUMENTS - 8, "<q", -2), "does not begin where"),
    "the first document": (number(DOCUMENTS, "<q", 1), "every sequence as one document"),
    "the last document": (number(DOCUMENTS + 8 * N_ROWS, "<q", -1), "every sequence as one document"),
    "a length": (number(HEADER_BYTES + 4 * (N_ROWS - 1), "<i", 1), "does not match its .bin file"),
}


@pytest.mark.parametrize("offset", OFFSETS.values(), ids=OFFSETS)
@pytest.mark.parametrize("forgery", FORGERIES)
def test_verify_finds_inconsistent_megatron_index(forgery: str, offset: int, tmp_path: Path) -> None:
    out = export(MegatronJob, tmp_path, offset)
    change, message = FORGERIES[forgery]
    path = out / "part-000000.idx"
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    refused(out, path, rf"part-000000\.idx .*{message}")


def test_verify_finds_negative_ids(tmp_path: Path) -> None:
    out = export(MegatronJob, tmp_path, OFFSETS["wide"])
    path = out / "part-000000.bin"
    ids = np.fromfile(path, "<i4")
    ids[3] = -7
    path.write_bytes(ids.tobytes())
    refused(out, path, "has the id -7")


@pytest.mark.parametrize("wrong", [500 + 64 + 8, -1])
def test_verify_finds_ids_outside_vocabulary(wrong: int, tmp_path: Path) -> None:
    out = export(SequencesJob, tmp_path, OFFSETS["narrow"])
    path = out / "part-000000.parquet"
    table = pq.read_table(path)
    ids = table["input_ids"].to_pylist()
    ids[2][1] = wrong
    place = table.schema.get_field_index("input_ids")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(ids, table.schema.types[place])), path)
    refused(out, path, f"has the id {wrong}, but the ids of its vocabulary end before 572")


def test_verify_requires_sequences_metadata(tmp_path: Path) -> None:
    out = export(SequencesJob, tmp_path, OFFSETS["narrow"])
    path = out / "part-000000.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    refused(out, path, "no description of its ids")


def test_verify_reads_one_row_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory must not grow with parts, several of which are read at once."""
    monkeypatch.setattr(sequences, "ROW_GROUP_IDS", 1)
    out = export(SequencesJob, tmp_path, 500)
    assert pq.read_metadata(out / "part-000000.parquet").num_row_groups == N_ROWS
    looked_at: list[int] = []
    check = verify_sequences._refuse_foreign_ids

    def counted(ids: np.ndarray, *others: Any) -> None:
        looked_at.append(len(ids))
        check(ids, *others)

    monkeypatch.setattr(verify_sequences, "_refuse_foreign_ids", counted)
    verify_output(open_storage(out))
    assert looked_at == [5 + n + 3 for n in range(N_ROWS)]
