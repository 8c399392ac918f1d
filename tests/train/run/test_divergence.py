"""Divergence of a run is told from its metrics alone."""

from __future__ import annotations

import math

import pytest
import torch

from codectok.train import load_train_config
from codectok.train.distributed import Ranks
from codectok.train.run.divergence import DivergenceMonitor
from codectok.train.run.window import MetricsWindow


def monitor() -> DivergenceMonitor:
    """A monitor after a first loss of 10 and a lowest mel error of 2."""
    monitor = DivergenceMonitor(load_train_config("nano", ["explosion=3", "loss_explosion=10"]))
    monitor.observe_step({"generator": torch.tensor(10.0)}, Ranks())
    monitor.observe_step({"generator": torch.tensor(1.0)}, Ranks())
    monitor.observe_window({"mel_1024": 2.0})
    monitor.observe_window({"mel_1024": 5.0})
    return monitor


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({}, None),
        ({"mel_1024": 6.0, "generator": 100.0}, None),
        ({"mel_1024": 6.1, "generator": 100.0}, "explosion=3"),
        ({"mel_1024": 6.0, "generator": 100.1}, "loss_explosion=10"),
        ({"mel_1024": 1.0, "adversarial": math.nan}, "adversarial is not a finite number"),
    ],
)
def test_divergence_reason(metrics: dict[str, float], reason: str | None) -> None:
    found = monitor().reason(metrics)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert reason in found


def test_divergence_state_is_restored() -> None:
    restored = DivergenceMonitor(load_train_config("nano", []))
    restored.load_state_dict(monitor().state_dict())
    assert restored.reason({"mel_1024": 6.1}) is not None


def test_metrics_window_averages_over_its_steps() -> None:
    window = MetricsWindow(Ranks(), torch.device("cpu"))
    assert window.is_empty and window.means() == {}
    window.add({"mel": torch.tensor(1.0)})
    window.add({"mel": torch.tensor(2.0), "adversarial": torch.tensor(5.0)})
    resumed = MetricsWindow(Ranks(), torch.device("cpu"))
    resumed.load_state_dict(window.state_dict())
    resumed.add({"mel": torch.tensor(6.0)})
    assert window.means() == {"mel": 1.5, "adversarial": 5.0}
    assert resumed.means() == {"mel": 3.0, "adversarial": 5.0}
    resumed.reset()
    assert resumed.is_empty
