"""Token tables as a dataset for training: ranks, workers, epochs, resuming."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

import codectok
from codectok import InputError
from codectok.tokens import TokenDataset
from codectok.tokens import table as table_module
from codectok.tokens.reader import TokenTable, open_table
from tests.helpers.tables import metadata, rows, write

ROWS = 37


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenTable:
    monkeypatch.setattr(table_module, "ROW_GROUP_CODES", 100)  # several groups a file
    everything = rows(ROWS)
    for number, first in enumerate(range(0, ROWS, 10)):
        write(tmp_path / f"{number}.parquet", everything[first : first + 10], metadata())
    return open_table(tmp_path)


def loader_of(dataset: TokenDataset, batch_size: int, n_workers: int = 0, **options: Any) -> DataLoader[Any]:
    """A DataLoader whose batches are lists of ids."""
    collate = lambda batch: [row["id"] for row in batch]  # noqa: E731
    return DataLoader(dataset, batch_size, num_workers=n_workers, collate_fn=collate, **options)


def ids(table: TokenTable, n_workers: int = 0, batch_size: int = 4, **options: Any) -> list[list[str]]:
    """Ids of each batch of a DataLoader."""
    return list(loader_of(table.to_torch_dataset(batch_size, **options), batch_size, n_workers))


def flat(batches: list[list[str]]) -> list[str]:
    return [row for batch in batches for row in batch]


def test_dataset_is_exported() -> None:
    assert codectok.TokenDataset is codectok.tokens.TokenDataset is TokenDataset


@pytest.mark.parametrize("seed", [None, 3])
def test_batches_do_not_depend_on_workers(table: TokenTable, seed: int | None) -> None:
    alone = ids(table, seed=seed)
    assert [len(batch) for batch in alone] == [4] * 9
    assert ids(table, 2, seed=seed) == alone
    assert len(set(flat(alone))) == 36
    assert (flat(alone) == [row.id for row in table][:36]) == (seed is None)


@pytest.mark.parametrize("epoch", [0, 2])
def test_ranks_and_workers_together_read_each_row_once(table: TokenTable, epoch: int) -> None:
    alone = flat(ids(table, batch_size=1, seed=5, epoch=epoch))
    assert sorted(alone) == sorted(row.id for row in table)
    for world_size, batch_size, n_workers in ((1, 3, 2), (2, 3, 0), (3, 2, 2), (5, 1, 0)):
        options = {"seed": 5, "epoch": epoch, "world_size": world_size}
        ranks = [ids(table, n_workers, batch_size, rank=rank, **options) for rank in range(world_size)]
        found = flat([batch for step in zip(*ranks, strict=True) for batch in step])
        # The rows that do not fill a batch for every rank are the last ones of the epoch.
        assert found == alone[: len(found)]
        assert len(found) == ROWS - ROWS % (world_size * batch_size)
        every = [ids(table, 0, batch_size, rank=rank, drop_last=False, **options) for rank in range(world_size)]
        assert sorted(flat(flat(every))) == sorted(alone)  # type: ignore[arg-type]


def test_epochs_have_different_orders_that_a_seed_decides(table: TokenTable) -> None:
    orders = [tuple(flat(ids(table, batch_size=1, seed=seed, epoch=epoch))) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len(set(orders)) == 6
    assert len({tuple(sorted(order)) for order in orders}) == 1
    assert ids(table, epoch=3) == ids(table)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_set_epoch_reaches_persistent_workers(table: TokenTable, n_workers: int) -> None:
    dataset = table.to_torch_dataset(4, seed=1, start=8)
    loader = loader_of(dataset, 4, n_workers, persistent_workers=n_workers > 0)
    found = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        found.append(list(loader))
    expected = [ids(table, seed=1, epoch=epoch) for epoch in range(3)]
    assert found == [expected[0][2:], *expected[1:]]


def test_ranks_resume_at_any_batch_with_other_ranks_and_workers(table: TokenTable) -> None:
    alone = ids(table, batch_size=2, seed=1, epoch=1)
    for n_steps in range(7):
        # After some steps of three ranks, two ranks with workers resume.
        start = n_steps * 2 * 3
        options = {"seed": 1, "epoch": 1, "start": start, "world_size": 2}
        rest = [ids(table, rank, batch_size=2, rank=rank, **options) for rank in range(2)]
        together = [batch for step in zip(*rest, strict=True) for batch in step]
        assert together == alone[n_steps * 3 :][: len(together)]
        assert len(together) == (ROWS - start) // 4 * 2


def test_state_resumes_at_any_row(table: TokenTable) -> None:
    def dataset() -> TokenDataset:
        return table.to_torch_dataset(4, rank=1, world_size=2, seed=2, epoch=1, start=8)

    expected = [row["id"] for row in dataset()]
    for n_rows in range(len(expected) + 1):
        first, second = dataset(), table.to_torch_dataset(4, rank=1, world_size=2, seed=2)
        reading = iter(first)
        for _ in range(n_rows):
            next(reading)
        second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
        assert second.state_dict() == first.state_dict()
        assert [row["id"] for row in second] == expected[n_rows:]
        second.set_epoch(2)
        assert [row["id"] for row in second] == flat(ids(table, seed=2, epoch=2, rank=1, world_size=2))


@pytest.mark.parametrize("n_workers", [0, 3])
def test_stateful_loader_of_torchdata_resumes_at_any_batch(table: TokenTable, n_workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loader(**options: Any) -> Any:
        dataset = table.to_torch_dataset(4, seed=2, **options)
        return stateful(dataset, 4, num_workers=n_workers, collate_fn=lambda batch: [row["id"] for row in batch])

    expected = list(loader(epoch=1))
    for n_batches in range(0, len(expected), 1 if n_workers == 0 else 4):
        first, second = loader(epoch=1), loader()
        reading = iter(first)
        for _ in range(n_batches):
            next(reading)
        second.load_state_dict(first.state_dict())
        assert list(second) == expected[n_batches:]
        second.dataset.set_epoch(2)
        assert list(second) == ids(table, seed=2, epoch=2)


def test_state_of_another_order_is_refused(table: TokenTable) -> None:
    state = table.to_torch_dataset(4, world_size=2).state_dict()
    for other in (table.to_torch_dataset(4), table.to_torch_dataset(2, world_size=2)):
        with pytest.raises(InputError, match="start"):
            other.load_state_dict(state)


def test_drop_last_false_keeps_all_rows(table: TokenTable) -> None:
    found = [row["id"] for row in table.to_torch_dataset(4, drop_last=False)]
    assert found == [row.id for row in table]
    assert len(table.to_torch_dataset(4, drop_last=False)) == ROWS
    assert len(table.to_torch_dataset(4)) == 36


@pytest.mark.parametrize("options", [{"rank": 1}, {"batch_size": 0}, {"start": -1}, {"seed": -1}, {"epoch": -1}])
def test_invalid_options_are_refused(options: dict[str, Any], table: TokenTable) -> None:
    with pytest.raises(InputError):
        table.to_torch_dataset(**options)
    with pytest.raises(InputError):
        table.to_torch_dataset().set_epoch(-1)
