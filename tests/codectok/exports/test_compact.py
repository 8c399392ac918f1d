"""Forms of token tables for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from codectok import InputError
from codectok.exports.compact import compact
from codectok.tokens.reader import open_table
from codectok.tokens.table import read_rows

from ..tokens.test_table import metadata, rows, write


def test_compact_files_hold_the_same_rows(tmp_path: Path) -> None:
    everything = rows(60)
    for number, first in enumerate(range(0, 60, 7)):
        write(tmp_path / "table" / f"{number}.parquet", everything[first : first + 7], metadata())
    done = compact(tmp_path / "table", tmp_path / "out", file_megabytes=0.01, group_megabytes=0.002)
    files = sorted((tmp_path / "out").iterdir())
    assert (done.rows, done.files) == (60, len(files))
    assert done.bytes == sum(file.stat().st_size for file in files)
    assert 1 < len(files) < 9
    assert all(file.stat().st_size > 10_000 for file in files[:-1])
    for before, after in zip(read_rows(tmp_path / "table"), read_rows(tmp_path / "out"), strict=True):
        np.testing.assert_array_equal(before.codes, after.codes)
        assert (before.id, before.text, before.dataset) == (after.id, after.text, after.dataset)
    assert open_table(tmp_path / "out").metadata.unit_hash is None
    sizes = [pq.read_metadata(file).row_group(0).num_rows for file in files]
    assert max(sizes) > 7


def test_compact_is_the_same_however_the_parts_were_cut(tmp_path: Path) -> None:
    everything = rows(40)
    write(tmp_path / "one" / "0.parquet", everything, metadata())
    for number, first in enumerate(range(0, 40, 5)):
        write(tmp_path / "many" / f"{number}.parquet", everything[first : first + 5], metadata())
    for name in ("one", "many"):
        compact(tmp_path / name, tmp_path / f"{name}-out")
    (one,), (many,) = ((tmp_path / f"{name}-out").iterdir() for name in ("one", "many"))
    assert one.read_bytes() == many.read_bytes()


def test_what_cannot_be_compacted_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "table" / "0.parquet", rows(2), metadata())
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(InputError, match="already holds"):
        compact(tmp_path / "table", tmp_path / "taken")
    with pytest.raises(InputError, match="impossible"):
        compact(tmp_path / "table", tmp_path / "out", file_megabytes=1, group_megabytes=2)


def test_half_a_table_is_none(tmp_path: Path) -> None:
    """Stopped in the middle, nothing lies where the table is to be; done again, all of it does."""
    everything = rows(40)
    for number, first in enumerate(range(0, 40, 10)):
        write(tmp_path / "table" / f"{number}.parquet", everything[first : first + 10], metadata())
    done = []

    def stop() -> None:
        done.append(None)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compact(tmp_path / "table", tmp_path / "out", file_megabytes=0.002, group_megabytes=0.001, on_file=stop)
    assert not (tmp_path / "out").exists()
    compact(tmp_path / "table", tmp_path / "out")
    assert len(open_table(tmp_path / "out")) == len(open_table(tmp_path / "table"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
