"""Training of codecs.

The public names are imported on first use, so that `import codectok.train` stays fast:

- `TrainConfig`, `load_train_config`, `load_stages`: configuration of a run.
- `train`, `TrainingReport`: train a codec in this process.
- `dry_run`, `DryRunReport`: memory and time that a run needs.
- `Trainer`: the training step, for training loops of your own.
- `DataConfig`, `SegmentReader`, `SegmentLoader`, `Batch`: exact and resumable batches from shards.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codectok.train.data.batches import Batch
    from codectok.train.data.config import DataConfig
    from codectok.train.data.loader import SegmentLoader
    from codectok.train.data.segments import SegmentReader
    from codectok.train.launch.launch import train
    from codectok.train.run.dry_run import DryRunReport, dry_run
    from codectok.train.run.run import TrainingReport
    from codectok.train.trainer.trainer import Trainer

    from .config import TrainConfig, load_stages, load_train_config

_MODULES = {
    "Batch": "data.batches",
    "DataConfig": "data.config",
    "DryRunReport": "run.dry_run",
    "SegmentLoader": "data.loader",
    "SegmentReader": "data.segments",
    "TrainConfig": "config",
    "Trainer": "trainer.trainer",
    "TrainingReport": "run.run",
    "dry_run": "run.dry_run",
    "load_stages": "config",
    "load_train_config": "config",
    "train": "launch.launch",
}

__all__ = [
    "Batch",
    "DataConfig",
    "DryRunReport",
    "SegmentLoader",
    "SegmentReader",
    "TrainConfig",
    "Trainer",
    "TrainingReport",
    "dry_run",
    "load_stages",
    "load_train_config",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
