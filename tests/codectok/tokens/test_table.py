"""Schema, writing and reading of token tables and files of codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from fsspec import AbstractFileSystem

from codectok import InputError
from codectok.tokens import codes_file, table
from codectok.tokens.codes_file import read_codes, read_codes_metadata, write_codes
from codectok.tokens.table import METADATA_KEY, TokenRow, read_metadata, read_rows
from tests.helpers.tables import metadata, rows, write


def test_written_rows_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROW_GROUP_CODES", 40)
    made = rows(7)
    write(tmp_path / "part-000000.parquet", made, metadata())
    assert pq.ParquetFile(tmp_path / "part-000000.parquet").num_row_groups > 1
    for found, row in zip(read_rows(tmp_path), made, strict=True):
        np.testing.assert_array_equal(found.codes, row.codes)
        assert (found.id, found.dataset, found.start, found.text) == (row.id, row.dataset, row.start, row.text)
    assert [row.id for row in read_rows(tmp_path, ids={"clip/3"})] == ["clip/3"]
    assert read_metadata(tmp_path) == metadata()


def test_schema_of_version_1(tmp_path: Path) -> None:
    write(tmp_path / "part-000000.parquet", rows(3), metadata())
    schema = pq.read_schema(tmp_path / "part-000000.parquet")
    assert {field.name: str(field.type) for field in schema} == {
        "id": "string",
        "source": "string",
        "dataset": "dictionary<values=string, indices=int32, ordered=0>",
        "start": "double",
        "duration": "double",
        "n_samples": "int64",
        "codes": "list<element: uint16 not null>",
        "n_frames": "int32",
        "text": "string",
        "language": "string",
        "speaker": "string",
        "category": "string",
        "extra": "string",
    }
    assert METADATA_KEY in schema.metadata
    column = pq.ParquetFile(tmp_path / "part-000000.parquet").metadata.row_group(0)
    by_name = {column.column(i).path_in_schema: column.column(i) for i in range(column.num_columns)}
    assert by_name["codes.list.element"].statistics is None
    assert by_name["n_frames"].statistics.min == 5
    assert by_name["codes.list.element"].compression == "ZSTD"


def test_large_codebooks_have_32_bit_codes(tmp_path: Path) -> None:
    made = rows(2, codebook_size=100_000)
    write(tmp_path / "a.parquet", made, metadata(codebook_size=100_000))
    assert pq.read_schema(tmp_path / "a.parquet").field("codes").type.value_type == pa.uint32()
    np.testing.assert_array_equal(next(read_rows(tmp_path / "a.parquet")).codes, made[0].codes)


def test_pyarrow_and_datasets_read_table_folder(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "tokens"
    (folder / "_codectok" / "records").mkdir(parents=True)
    (folder / "_codectok" / "records" / "000000.json").write_text("{}")
    for part in range(2):
        write(folder / f"part-{part:06d}.parquet", rows(4), metadata())
    assert pyarrow.dataset.dataset(folder).count_rows() == 8
    loaded = datasets.load_dataset(
        "parquet", data_files=str(folder / "*.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.num_rows == 8
    assert loaded[1]["codes"] == rows(2)[1].codes.flatten().tolist()


def test_table_of_two_codecs_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "part-000000.parquet", rows(2), metadata())
    write(tmp_path / "part-000001.parquet", rows(2), metadata(fingerprint="other"))
    with pytest.raises(InputError, match="differ in codec"):
        list(read_rows(tmp_path))


def test_non_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Parquet file"):
        read_metadata(tmp_path)
    (tmp_path / "a.parquet").write_text("text")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_metadata(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="not a token table"):
        read_metadata(tmp_path)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_written_codes_file_is_read_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"codes{suffix}"
    made = rows(5)
    assert write_codes(path, metadata(), made) == 5
    assert read_codes_metadata(path) == metadata()
    found = dict(read_codes(path))
    assert list(found) == [row.id for row in made]
    for row in made:
        np.testing.assert_array_equal(found[row.id], row.codes)
    assert list(dict(read_codes(path, {"clip/2"}))) == ["clip/2"]
    with pytest.raises(InputError, match="already exists"):
        write_codes(path, metadata(), made)


def test_bound_of_codes_is_that_of_each_codebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes_file, "MAX_CODEBOOK_BYTES", 1 << 14)
    (row,) = rows(1, n_codebooks=32)
    for n_frames in (1 << 12, 1 << 13):
        long = replace(row, codes=np.zeros((n_frames, 32), np.int64))
        write_codes(tmp_path / f"{n_frames}.npz", metadata(n_codebooks=32), [long])
    ((_, codes),) = read_codes(tmp_path / f"{1 << 12}.npz")
    assert codes.shape == (1 << 12, 32)
    with pytest.raises(InputError, match="more than"):
        list(read_codes(tmp_path / f"{1 << 13}.npz"))


def test_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[TokenRow]:
        yield rows(1)[0]
        raise KeyboardInterrupt

    for suffix in (".npz", ".parquet"):
        with pytest.raises(KeyboardInterrupt):
            write_codes(tmp_path / f"codes{suffix}", metadata(), broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"), [("a.npz", "cannot be read"), ("b.npz", "no entry"), ("c.npz", "no file")]
)
def test_non_codes_files_are_refused(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("text")
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    with pytest.raises(InputError, match=message):
        read_codes_metadata(tmp_path / name)


def test_damaged_codes_name_clip(tmp_path: Path) -> None:
    write_codes(tmp_path / "codes.npz", metadata(), rows(3))
    data = bytearray((tmp_path / "codes.npz").read_bytes())
    name = b"clip/1.npy"
    data[data.index(name) + len(name) + 40] ^= 0xFF
    (tmp_path / "codes.npz").write_bytes(data)
    with pytest.raises(InputError, match="damaged at clip clip/1"):
        list(read_codes(tmp_path / "codes.npz"))
    write(tmp_path / "codes.parquet", rows(3), metadata())
    data = bytearray((tmp_path / "codes.parquet").read_bytes())
    data[4:200] = bytes(196)
    (tmp_path / "codes.parquet").write_bytes(data)
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        list(read_rows(tmp_path / "codes.parquet"))


def test_added_columns_are_ignored(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", rows(3), metadata())
    found = pq.read_table(tmp_path / "a.parquet")
    pq.write_table(found.append_column("score", pa.array([1, 2, 3])), tmp_path / "a.parquet")
    assert len(list(read_rows(tmp_path / "a.parquet"))) == 3


class Refusing(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store whose client raises its own errors, like that of S3."""

    protocol = "refusing"

    def info(self, path: str, **_: object) -> dict[str, object]:
        raise RuntimeError(f"no bucket {path}")

    ls = info


def test_storage_errors_become_input_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    monkeypatch.setattr(Refusing, "isdir", Refusing.info)
    with pytest.raises(InputError, match=r"^refusing://none/x cannot be listed: no bucket none/x\.$"):
        read_metadata("refusing://none/x")
