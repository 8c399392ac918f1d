"""Megatron's indexed datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codectok.exports.sequences.megatron import IndexedDatasetWriter, code_of_ids
from tests.helpers.megatron import Indexed, read_indexed


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def test_written_sequences_are_read_back(tmp_path: Path) -> None:
    with IndexedDatasetWriter(tmp_path / "part", code_of_ids(184_840)) as writer:
        writer.write([ids(1, 2), ids(184_839)])
        writer.write([ids(152_064, 3, 5, 7)])
        writer.write([ids(9)])
    found = read_indexed(tmp_path / "part")
    assert found.dtype == "<i4"
    assert found.sequences == [[1, 2, 184_839], [152_064, 3, 5, 7], [9]]
    assert found.documents == [0, 1, 2, 3]
    assert (tmp_path / "part.idx").stat().st_size == 34 + 12 * 3 + 8 * 4


@pytest.mark.parametrize(("size", "dtype"), [(65_499, "<u2"), (65_500, "<i4")])
def test_small_vocabulary_has_16_bit_ids(size: int, dtype: str, tmp_path: Path) -> None:
    with IndexedDatasetWriter(tmp_path / "part", code_of_ids(size)) as writer:
        writer.write([ids(65_498, 0)])
    assert read_indexed(tmp_path / "part") == Indexed(dtype, [[65_498, 0]], [0, 1])


def test_bytes_of_bin_and_idx(tmp_path: Path) -> None:
    with IndexedDatasetWriter(tmp_path / "part", code_of_ids(70_000)) as writer:
        writer.write([ids(258)])
        writer.write([ids(1, 2)])
    assert (tmp_path / "part.bin").read_bytes() == bytes([2, 1, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0])
    expected = b"MMIDIDX\x00\x00" + bytes([1, *[0] * 7, 4, 2, *[0] * 7, 3, *[0] * 7])
    expected += bytes([1, 0, 0, 0, 2, 0, 0, 0]) + bytes([*[0] * 8, 4, *[0] * 7])
    expected += bytes([*[0] * 8, 1, *[0] * 7, 2, *[0] * 7])
    assert (tmp_path / "part.idx").read_bytes() == expected


def test_empty_dataset_is_written(tmp_path: Path) -> None:
    with IndexedDatasetWriter(tmp_path / "part", code_of_ids(70_000)):
        pass
    assert read_indexed(tmp_path / "part") == Indexed("<i4", [], [0])


def test_interrupted_writer_leaves_no_index(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), IndexedDatasetWriter(tmp_path / "part", code_of_ids(70_000)) as writer:
        writer.write([ids(1)])
        raise KeyboardInterrupt
    assert not (tmp_path / "part.idx").exists()
