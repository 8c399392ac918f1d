"""Status of a training run from its files alone: last step, last losses, time left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from codectok.train.run.checkpoint import CONFIG_FILE
from codectok.train.run.divergence import mel_metric
from codectok.train.run.lock import is_locked
from codectok.train.run.metrics_log import TENSORBOARD_FOLDER
from codectok.train.run.output import CHECKPOINT_FOLDER, holds_codec_of

from .events import RunEvents
from .run_folder import RunFolder, read_run

# Metrics of a step by their labels.
LOSSES = {"generator": "generator loss", "discriminator": "discriminator loss", "codebook_usage": "codes used"}
SPEED = "steps_per_second"


@dataclass(frozen=True)
class TrainStatus:
    """Status of a run.

    Attributes:
        output: folder of the run.
        finished: True if the last step was taken and the codec is written.
        running: True if a training uses the folder; None if that cannot be known from here.
        step: last logged step; None before the first.
        steps: steps of the whole run; None if this version cannot read the configuration.
        losses: last values of the most important metrics by label.
        seconds_since_sign: since the last logged entry, which may be written minutes late; None without any.
        steps_per_second: speed at the last entry.
        checkpoints: steps of the kept checkpoints.
    """

    output: Path
    finished: bool
    running: bool | None
    step: int | None
    steps: int | None
    losses: dict[str, float]
    seconds_since_sign: float | None
    steps_per_second: float | None
    checkpoints: tuple[int, ...]

    @property
    def seconds_left(self) -> float | None:
        """Estimated time of the steps that are missing; None if unknown."""
        if self.step is None or self.steps is None or not self.steps_per_second:
            return None
        return max(0, self.steps - self.step) / self.steps_per_second


def training_folders(output: Path) -> list[Path]:
    """Folders of the runs in `output`: itself, or its stages; empty if it holds no run."""
    folders = [output, *sorted(path.parent for path in output.glob(f"*/{CONFIG_FILE}"))]
    found = [folder for folder in folders if (folder / CONFIG_FILE).is_file() and _is_run(folder)]
    return found[:1] if found[:1] == [output] else found


def read_training_status(folder: Path) -> TrainStatus:
    """Read the status of the run in `folder`.

    Raises:
        InputError: it is not the folder of a run, or tensorboard is not installed.
    """
    run = read_run(folder)
    events = run.events
    # Metrics may lag behind a checkpoint, whose step is certain.
    step = max([*run.checkpoints, *([] if events.last_step is None else [events.last_step])], default=None)
    steps = None if run.config is None else run.config.steps
    return TrainStatus(
        output=folder,
        finished=step is not None and steps is not None and step >= steps and holds_codec_of(folder, step),
        running=is_locked(folder),
        step=step,
        steps=steps,
        losses=_losses(run),
        seconds_since_sign=None if events.last_time is None else max(0.0, time.time() - events.last_time),
        steps_per_second=_last(events, SPEED),
        checkpoints=run.checkpoints,
    )


def _losses(run: RunFolder) -> dict[str, float]:
    labels = dict(LOSSES) if run.config is None else {mel_metric(run.config): "mel error", **LOSSES}
    values = {label: _last(run.events, name) for name, label in labels.items()}
    return {label: value for label, value in values.items() if value is not None}


def _last(events: RunEvents, name: str) -> float | None:
    points = events.scalars.get(name)
    return points[-1][1] if points else None


def _is_run(folder: Path) -> bool:
    return (folder / TENSORBOARD_FOLDER).is_dir() or (folder / CHECKPOINT_FOLDER).is_dir()
