"""Files whose codes were computed differently: refused by name, mixed on request, warned of if versions differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from codectok import InputError, open_table
from codectok.exports.dataset_card import write_dataset_card
from codectok.tokens.codes_file import read_codes, read_codes_metadata
from codectok.tokens.mixing import MIXED, merge_metadata
from codectok.tokens.source_rows import row_by_id, token_rows
from codectok.tokens.table import METADATA_KEY, TableMetadata, read_metadata, read_rows
from tests.helpers.ranges import source_of
from tests.helpers.tables import metadata, rows, write

H100 = "NVIDIA H100 80GB HBM3"
GPU = {"device": H100, "batch_seconds": 0.0}
ARITHMETIC = [
    ({"device": H100}, {}, f"device: {H100} and cpu"),
    ({"dtype": "bfloat16"}, {}, "dtype: bfloat16 and float32"),
    (GPU | {"tf32": True}, GPU, "TF32: on and off"),
    (GPU | {"kernels": "triton"}, GPU, "kernels: triton and torch"),
    (GPU | {"pack_frames": 512}, GPU, "pack_frames: 512 and 4096"),
    ({"batch_seconds": 20.0}, {"batch_seconds": 0.0}, "batch_seconds: 20.0 and 0.0"),
    ({"dtype": "tf32", "device": "A"}, {"device": "B"}, "dtype: tf32 and float32, TF32: on and off, device: A and B"),
]


def described(**changes: Any) -> TableMetadata:
    return metadata(1024, 2).model_copy(update=changes)


def write_two(folder: Path, one: dict[str, Any], other: dict[str, Any]) -> Path:
    made = rows(4)
    write(folder / "part-000000.parquet", made[:2], described(**one))
    write(folder / "part-000001.parquet", made[2:], described(**other))
    return folder


@pytest.mark.parametrize(("one", "other", "message"), ARITHMETIC)
def test_different_arithmetic_is_refused_by_name(
    one: dict[str, Any], other: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_two(tmp_path / "t", one, other)
    readers = (read_metadata, open_table, read_codes_metadata, lambda path: list(read_rows(path)), write_dataset_card)
    for read in readers:
        with pytest.raises(InputError, match=rf"part-000000.parquet and .*part-000001.parquet differ in {message};"):
            read(folder)
    with pytest.raises(InputError, match="--allow-mixed"):
        list(token_rows(source_of(folder / "part-000001.parquet"), described(**one)))


@pytest.mark.parametrize(("one", "other", "message"), ARITHMETIC)
def test_mixture_is_read_on_request_and_recorded(
    one: dict[str, Any], other: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_two(tmp_path / "t", one, other)
    table = open_table(folder, allow_mixed=True)
    ids = [row.id for row in rows(4)]
    assert [row.id for row in table] == ids == [row_id for row_id, _ in read_codes(folder, allow_mixed=True)]
    named = dict(part.split(": ") for part in message.replace("TF32: on and off", "tf32: on and off").split(", "))
    assert {field: " and ".join(values) for field, values in table.metadata.mixed.items()} == {
        field: " and ".join(sorted(values.split(" and "))) for field, values in named.items()
    }
    for field in {"dtype", "device"} & named.keys():
        assert getattr(table.metadata, field) == MIXED
    assert table.metadata.precision in ("float32", "bfloat16")
    # Files of the mixture are covered by its description; others are not.
    for source in (source_of(path) for path in sorted(folder.glob("*.parquet"))):
        assert len(list(token_rows(source, table.metadata))) == 2
        assert row_by_id(source, table.metadata, "nothing") is None
    write(tmp_path / "foreign.parquet", rows(1), described(dtype="other"))
    with pytest.raises(InputError, match="differ in dtype"):
        list(token_rows(source_of(tmp_path / "foreign.parquet"), table.metadata))
    # A recorded mixture is a table like others, and agrees with itself.
    write(tmp_path / "again" / "0.parquet", rows(1), table.metadata)
    write(tmp_path / "again" / "1.parquet", rows(2)[1:], table.metadata)
    assert read_metadata(tmp_path / "again") == table.metadata


@pytest.mark.parametrize(
    "other",
    [
        {"codec_fingerprint": "g"},
        {"codebook_size": 512},
        {"n_codebooks": 1},
        {"frame_rate": 50.0},
        {"sample_rate": 16_000},
        {"frame_rounding": "up"},
    ],
)
def test_other_codec_is_always_refused(other: dict[str, Any]) -> None:
    files = [("a", described()), ("b", described(**other))]
    for allow_mixed in (False, True):
        with pytest.raises(InputError, match=r"a and b differ in .*; keep codes of different codecs apart"):
            merge_metadata(files, allow_mixed)


def test_versions_alone_warn_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_two(tmp_path / "t", {"torch": "2.10.0"}, {"torch": "2.11.0", "transformers": "5.24.0"})
    table = open_table(folder)
    list(table)
    (message,) = caplog.messages
    assert "version of torch: 2.10.0 and 2.11.0;" in message and "\n" not in message
    assert table.metadata.torch is None
    assert table.metadata.mixed == {"torch": ("2.10.0", "2.11.0")}
    assert "2.10.0 and 2.11.0" in table.metadata.made_with


def test_revision_and_unknown_fields_agree(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Tables of earlier versions lack fields, and say TF32 by their dtype alone."""
    new = {"dtype": "tf32", "tf32": True, "torch": "2.11.0", "weights_sha256": "w", "n_residuals": 2, "revision": "r"}
    folder = write_two(tmp_path / "t", new | GPU, {"device": H100, "dtype": "tf32"})
    path = folder / "part-000001.parquet"
    old = pq.read_table(path)
    fields = described(device=H100, dtype="tf32").model_dump(mode="json")
    kept = {
        name: value
        for name, value in fields.items()
        if name not in ("tf32", "torch", "transformers", "mixed", "weights_sha256", "n_residuals", "batch_seconds")
    }
    earlier = TableMetadata.model_validate(kept)
    pq.write_table(old.replace_schema_metadata({METADATA_KEY: earlier.model_dump_json(exclude_unset=True)}), path)
    found = read_metadata(folder)
    assert not caplog.messages
    assert (found.mixed, found.revision, found.torch) == ({}, None, None)
    assert (found.weights_sha256, found.n_residuals, found.dtype) == ("w", 2, "tf32")
    both = [("a", described(revision="one")), ("b", described(revision="two", unit_hash="u"))]
    assert merge_metadata(both).revision is None


def test_pack_size_counts_on_gpus_only() -> None:
    cpu = [(str(n), described(pack_frames=n)) for n in (512, 8192)]
    assert merge_metadata(cpu).mixed == {}
    with pytest.raises(InputError, match="pack_frames"):
        merge_metadata([(name, one.model_copy(update={"device": H100})) for name, one in cpu])


def test_mixture_differs_from_its_parts() -> None:
    mixture = merge_metadata([("a", described()), ("b", described(device=H100))], allow_mixed=True)
    with pytest.raises(InputError, match=rf"device: mixed \({H100}, cpu\) and cpu"):
        merge_metadata([("m", mixture), ("a", described())])
    joined = merge_metadata([("m", mixture), ("c", described(device="B200"))], allow_mixed=True)
    assert joined.mixed["device"] == ("B200", H100, "cpu")


def test_card_of_mixture_says_so(tmp_path: Path) -> None:
    folder = write_two(tmp_path / "t", {"device": H100}, {})
    write_dataset_card(folder, allow_mixed=True)
    assert f"device: {H100} and cpu" in (folder / "README.md").read_text()
