"""Work shared by several ranks: validation, checkpoints and gradients."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from codectok.train import TrainConfig, Trainer, train
from codectok.train.run import run
from codectok.train.run.checkpoint import save_training_state
from codectok.train.run.metrics_log import MetricsLog
from codectok.train.run.preparation import open_validation
from codectok.train.run.validation import clips_of_rank
from codectok.train.run.window import MetricsWindow
from tests.helpers.ranks import own_rank, run_on_ranks
from tests.train.conftest import tiny_config


@pytest.mark.parametrize(("n_clips", "world_size", "listen"), [(7, 1, 2), (7, 2, 5), (7, 3, 1), (2, 4, 4), (8, 4, 0)])
def test_ranks_share_clips_and_first_rank_logs(n_clips: int, world_size: int, listen: int) -> None:
    shares = [clips_of_rank(n_clips, rank, world_size, listen) for rank in range(world_size)]
    assert sorted(chain(*shares)) == list(range(n_clips))
    assert set(range(min(n_clips, listen))) <= set(shares[0])


def validated(config: TrainConfig) -> float:
    trainer = Trainer(config, torch.device("cpu"), own_rank())
    validation = open_validation(config)
    assert validation is not None
    log = MetricsLog(config, trainer.step, trainer.ranks.is_first, lambda step, metrics: None)
    with closing(log):
        return validation.run(trainer, log)


def test_clips_are_logged_on_several_ranks(shards: Path, held_out: Path, tmp_path: Path) -> None:
    options = [f"validation.shards={held_out}", "validation.clips=5", "validation.max_seconds=1", "validation.listen=4"]
    config = tiny_config(shards, tmp_path / "run", *options)
    first, second = run_on_ranks(validated, 2, config)
    assert first == second
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    kinds = ("original", "reconstruction")
    assert set(events.Tags()["audio"]) == {f"validation/{number}/{kind}" for number in range(4) for kind in kinds}


def stopped_at(config: TrainConfig) -> tuple[float, float | None]:
    """Time at which this rank left the run, and at which the first rank had written its checkpoint."""
    saved: list[float] = []

    def slow(*arguments: Any) -> Path:
        time.sleep(2)
        found = save_training_state(*arguments)
        saved.append(time.monotonic())
        return found

    stop = threading.Event()
    stop.set()
    with mock.patch.object(run, "save_training_state", slow):
        report = train(config, stop=stop)
    assert report.ending == "interrupted"
    return time.monotonic(), saved[-1] if saved else None


def test_ranks_wait_for_the_checkpoint(shards: Path, tmp_path: Path) -> None:
    """Soon after one rank has left, a launcher kills the others."""
    (_, saved), (left, _) = run_on_ranks(
        stopped_at, 2, tiny_config(shards, tmp_path / "run", "checkpoint_interval=100", steps=11)
    )
    assert left > saved


def gradient_of(parameter: torch.nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def storages_of_gradients() -> int:
    ranks = own_rank()
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 1))
    synchronized = ranks.synchronized(module)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    found = 0
    for _ in range(2):
        for microbatch in range(2):
            with ranks.accumulating(synchronized, last=microbatch == 1):
                synchronized(torch.ones(4, 3)).mean().backward()
        found = len({gradient_of(parameter).untyped_storage().data_ptr() for parameter in module.parameters()})
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return found


def test_gradients_are_views_of_buckets() -> None:
    assert run_on_ranks(storages_of_gradients, 2) == [1, 1]


def logged_means() -> list[dict[str, float]]:
    """Means of a window that was saved in its middle, by the run that goes on, and by one that resumes from it."""
    ranks, device = own_rank(), torch.device("cpu")
    losses = torch.rand(8, generator=torch.Generator().manual_seed(ranks.rank)) / 3
    going_on, resumed = MetricsWindow(ranks, device), MetricsWindow(ranks, device)
    for loss in losses[:5]:
        going_on.add({"loss": loss})
    resumed.load_state_dict(going_on.state_dict())
    for window in (going_on, resumed):
        for loss in losses[5:]:
            window.add({"loss": loss})
    return [going_on.means(), resumed.means()]


def test_metrics_of_a_resumed_window_are_equal_on_several_ranks() -> None:
    (going_on, resumed), others = run_on_ranks(logged_means, 2)
    assert going_on == resumed
    assert others == [going_on, resumed]
