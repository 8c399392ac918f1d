"""Writes metrics, audio and images to TensorBoard, Weights & Biases, a callback and events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codectok.atomic import write_text
from codectok.errors import InputError, shortened
from codectok.monitoring.events import CheckpointWritten, EventSink, NullEvents, StepLogged, Validated
from codectok.train.config import TrainConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TENSORBOARD_FOLDER = "tensorboard"
VALIDATION = "validation/"
# Holds the id of the run at Weights & Biases.
WANDB_FILE = "wandb-id"

MetricsCallback = Callable[[int, dict[str, float]], None]
"""Called with a step and its metrics."""


class MetricsLog:
    """Writes metrics on the first rank; does nothing on other ranks.

    Args:
        config: of the run.
        step: number of steps taken so far; TensorBoard drops later entries of a killed run.
        is_first: True on the first rank.
        on_metrics: called with all metrics.
        events: receives metrics and checkpoints.
    """

    def __init__(
        self,
        config: TrainConfig,
        step: int,
        is_first: bool,
        on_metrics: MetricsCallback,
        events: EventSink | None = None,
    ) -> None:
        self._events = (is_first and events) or NullEvents()
        self._sample_rate = config.codec.mel.sample_rate
        self._callbacks = [on_metrics] if is_first else []
        self._writers: list[_TensorBoard | _WeightsAndBiases] = []
        if is_first:
            if config.wandb_project is not None:
                self._writers.append(_WeightsAndBiases(config, config.wandb_project))
            self._writers.append(_TensorBoard(config, step))

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Write the metrics of `step`."""
        for writer in self._writers:
            writer.scalars(metrics, step)
        for callback in self._callbacks:
            callback(step, metrics)
        validated = all(name.startswith(VALIDATION) for name in metrics)
        self._events.emit(Validated(step, metrics) if validated else StepLogged(step, metrics))

    def checkpoint(self, step: int, path: Path) -> None:
        """Called when a checkpoint was written."""
        self._events.emit(CheckpointWritten(step, str(path)))

    def audio(self, step: int, name: str, samples: np.ndarray) -> None:
        """Write `samples` [n] at the codec's rate."""
        for writer in self._writers:
            writer.audio(name, samples, self._sample_rate, step)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Write an image, `pixels` [height, width] from 0 to 1."""
        for writer in self._writers:
            writer.image(name, pixels, step)

    def flush(self) -> None:
        """Write out what has been logged so far, so that a kill after the next checkpoint loses nothing."""
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        """Flush and close all writers."""
        for writer in self._writers:
            writer.close()


def check_writers(config: TrainConfig) -> None:
    """Check that the packages of all configured writers are installed.

    Raises:
        InputError: one is missing.
    """
    try:
        import_module("torch.utils.tensorboard")
    except ImportError:
        raise InputError("Training needs tensorboard; install it with: pip install tensorboard.") from None
    if config.wandb_project is None:
        return
    try:
        import_module("wandb")
    except ImportError:
        raise InputError("wandb_project needs wandb; install it with: pip install wandb.") from None


class _TensorBoard:
    def __init__(self, config: TrainConfig, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: SummaryWriter = SummaryWriter(str(config.output / TENSORBOARD_FOLDER), purge_step=step + 1)

    def scalars(self, scalars: dict[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def audio(self, name: str, samples: np.ndarray, sample_rate: int, step: int) -> None:
        self._writer.add_audio(name, samples[np.newaxis], step, sample_rate)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._writer.add_image(name, pixels[np.newaxis], step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, config: TrainConfig, project: str) -> None:
        import wandb

        self._wandb: Any = wandb
        settings = json.loads(config.model_dump_json())
        # A resumed run continues the same run there; steps that are logged a second time are ignored.
        id_file = config.output / WANDB_FILE
        if not id_file.exists():
            write_text(id_file, uuid.uuid4().hex)
        try:
            self._run: Any = wandb.init(
                project=project, id=id_file.read_text(), resume="allow", name=config.output.name, config=settings,
                dir=str(config.output),
            )  # fmt: skip
        except wandb.Error as error:
            raise InputError(
                f"Weights & Biases cannot be used (wandb_project): {shortened(error)}; log in with: wandb login, or"
                " set WANDB_MODE=offline."
            ) from None

    def scalars(self, scalars: dict[str, float], step: int) -> None:
        self._run.log(scalars, step=step)

    def audio(self, name: str, samples: np.ndarray, sample_rate: int, step: int) -> None:
        self._run.log({name: self._wandb.Audio(samples, sample_rate)}, step=step)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._run.log({name: self._wandb.Image(pixels)}, step=step)

    def flush(self) -> None:
        """Nothing to do: a service process sends the metrics, also after this one has died."""

    def close(self) -> None:
        self._run.finish()
