"""Reading token tables by id, by number, and for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from codectok import InputError
from codectok.tokens import table as table_module
from codectok.tokens.reader import TokenTable, open_table
from tests.helpers.tables import metadata, rows, write


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenTable:
    monkeypatch.setattr(table_module, "ROW_GROUP_CODES", 100)  # several groups a file
    everything = rows(37)
    for number, first in enumerate(range(0, 37, 10)):
        write(tmp_path / f"{number}.parquet", everything[first : first + 10], metadata())
    return open_table(tmp_path)


def test_rows_by_id_and_number(table: TokenTable) -> None:
    everything = rows(37)
    assert len(table) == 37
    assert len(table.groups) > 8
    assert [row.id for row in table] == [row.id for row in everything]
    for number in np.random.default_rng(0).permutation(37):
        for found in (table[everything[number].id], table.row(int(number))):
            assert found.id == everything[number].id
            np.testing.assert_array_equal(found.codes, everything[number].codes)
            assert found.text == everything[number].text
    with pytest.raises(InputError, match="has no row missing"):
        table["missing"]


def ids(table: TokenTable, n_workers: int, batch_size: int = 4, **options: Any) -> list[list[str]]:
    """Ids of each batch of a DataLoader."""
    dataset = table.to_torch_dataset(batch_size, **options)
    loader = DataLoader(
        dataset, batch_size, num_workers=n_workers, collate_fn=lambda batch: [row["id"] for row in batch]
    )
    return list(loader)


@pytest.mark.parametrize("seed", [None, 3])
def test_batches_do_not_depend_on_workers(table: TokenTable, seed: int | None) -> None:
    options = {} if seed is None else {"seed": seed}
    alone = ids(table, 0, **options)
    assert [len(batch) for batch in alone] == [4] * 9
    assert ids(table, 2, **options) == alone
    flat = [row for batch in alone for row in batch]
    assert len(set(flat)) == 36
    assert (flat == [row.id for row in table][:36]) == (seed is None)


def test_ranks_share_rows_and_resume_with_another_world_size(table: TokenTable) -> None:
    alone = ids(table, 0, batch_size=2, seed=1)
    ranks = [ids(table, 0, batch_size=2, seed=1, rank=rank, world_size=3) for rank in range(3)]
    together = [batch for step in zip(*ranks, strict=True) for batch in step]
    assert together == alone[: len(together)]
    assert len(together) == 18
    # After two steps of three ranks, two ranks resume.
    start = 2 * 2 * 3
    rest = [ids(table, 0, batch_size=2, seed=1, rank=rank, world_size=2, start=start) for rank in range(2)]
    assert [batch for step in zip(*rest, strict=True) for batch in step] == alone[6:]


def test_drop_last_false_keeps_all_rows(table: TokenTable) -> None:
    found = [row["id"] for row in table.to_torch_dataset(4, drop_last=False)]
    assert found == [row.id for row in table]
    assert len(table.to_torch_dataset(4, drop_last=False)) == 37
    assert len(table.to_torch_dataset(4)) == 36


@pytest.mark.parametrize("options", [{"rank": 1}, {"batch_size": 0}, {"start": -1}])
def test_invalid_rank_batch_size_or_start_is_refused(options: dict[str, Any], table: TokenTable) -> None:
    with pytest.raises(InputError):
        table.to_torch_dataset(**options)
