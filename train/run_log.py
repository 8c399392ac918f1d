"""What a run says of itself: means over windows of steps, to TensorBoard, Weights & Biases and whoever listens."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from codectok.atomic import write_text
from codectok.errors import CodectokError, InputError

from .config import TrainConfig
from .trainer import Trainer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TENSORBOARD_FOLDER = "tensorboard"
# By which Weights & Biases knows the run.
WANDB_FILE = "wandb-id"

LogListener = Callable[[int, dict[str, float]], None]


class RunLog:
    """Means over the steps between two logged ones, and how the codebooks are used.

    Every rank has one and calls it alike; the first writes.

    Args:
        figures: further ones of this rank, at the end of a window.
        on_log: hears of everything that is written.
        advice: what the message about a run that has diverged says one can do.
        lowest: mel error of a window so far, of which `lowest` then keeps account.
    """

    def __init__(
        self,
        config: TrainConfig,
        trainer: Trainer,
        figures: Callable[[], dict[str, float]],
        on_log: LogListener,
        advice: Callable[[], str],
        lowest: float = math.inf,
    ) -> None:
        self._config, self._trainer, self._figures, self._on_log, self._advice = (
            config, trainer, figures, on_log, advice
        )  # fmt: skip
        self._main = f"mel_{config.loss.mel[0].n_fft}"
        self.lowest = lowest
        self._sinks: list[_TensorBoard | _WeightsAndBiases] = []
        if trainer.ranks.is_first:
            self._sinks.append(_TensorBoard(config, trainer.step))
            if config.wandb_project is not None:
                self._sinks.append(_WeightsAndBiases(config, config.wandb_project))
        self._start_window()

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Take in a step; every `log_interval` steps the window is written."""
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._steps += 1
        if self._trainer.step % self._config.log_interval == 0:
            self.flush()

    def flush(self) -> None:
        """Write what has come in since the last time.

        Raises:
            CodectokError: a loss is no finite number, or the mel error has exploded.
        """
        if not self._steps:
            return
        self.check()
        scalars = self._means()
        scalars |= {name: float(value) for name, value in self._trainer.network.quantizer.codebook_metrics().items()}
        elapsed = time.monotonic() - self._started - self._paused_seconds
        samples = self._steps * self._config.data.batch_size * self._config.segment_samples
        scalars["audio_seconds_per_second"] = samples / self._config.codec.mel.sample_rate / elapsed
        scalars["steps_per_second"] = self._steps / elapsed
        scalars |= self._figures()
        self.lowest = min(self.lowest, scalars[self._main])
        self.write(scalars)
        self._start_window()

    def check(self) -> None:
        """Stop a run whose losses are no finite numbers any more, or whose mel error has exploded, before it is saved.

        Raises:
            CodectokError: that has happened.
        """
        means = self._means()
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            raise CodectokError(
                f"Training diverged: at step {self._trainer.step} {', '.join(broken)} is not a finite number;"
                f" {self._advice()}."
            )
        error = means.get(self._main, 0.0)
        if error > self._config.explosion * self.lowest:
            raise CodectokError(
                f"Training diverged: at step {self._trainer.step} {self._main} is {error:.3g}, after {self.lowest:.3g}"
                f" at its best (explosion={self._config.explosion:g}); {self._advice()}."
            )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done in this does not count for the speed."""
        started = time.monotonic()
        yield
        self._paused_seconds += time.monotonic() - started

    def write(self, scalars: dict[str, float]) -> None:
        """Write figures of the current step."""
        for sink in self._sinks:
            sink.scalars(scalars, self._trainer.step)
        if self._trainer.ranks.is_first:
            self._on_log(self._trainer.step, scalars)

    def audio(self, name: str, samples: np.ndarray) -> None:
        """Write `samples` [n] at the codec's rate."""
        for sink in self._sinks:
            sink.audio(name, samples, self._config.codec.mel.sample_rate, self._trainer.step)

    def image(self, name: str, pixels: np.ndarray) -> None:
        """Write an image, `pixels` [height, width] from 0 to 1."""
        for sink in self._sinks:
            sink.image(name, pixels, self._trainer.step)

    def close(self) -> None:
        """Bring everything to where it belongs."""
        for sink in self._sinks:
            sink.close()

    def _means(self) -> dict[str, float]:
        """Of the window so far, over all ranks."""
        if not self._sums:
            return {}
        device = self._trainer.device
        values = torch.stack([total.to(device) / self._counts[name] for name, total in self._sums.items()])
        return dict(zip(self._sums, self._trainer.ranks.mean(values).tolist(), strict=True))

    def _start_window(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._steps = 0
        self._started, self._paused_seconds = time.monotonic(), 0.0


class _TensorBoard:
    def __init__(self, config: TrainConfig, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("Training needs tensorboard; install it with: pip install tensorboard.") from None
        # What a killed run logged after its last checkpoint is replaced.
        self._writer: SummaryWriter = SummaryWriter(str(config.output / TENSORBOARD_FOLDER), purge_step=step + 1)

    def scalars(self, scalars: dict[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def audio(self, name: str, samples: np.ndarray, sample_rate: int, step: int) -> None:
        self._writer.add_audio(name, samples[np.newaxis], step, sample_rate)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._writer.add_image(name, pixels[np.newaxis], step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, config: TrainConfig, project: str) -> None:
        try:
            import wandb
        except ImportError:
            raise InputError("wandb_project needs wandb; install it with: pip install wandb.") from None
        self._wandb: Any = wandb
        described = json.loads(config.model_dump_json())
        # A run that goes on is one run there, too; what it logs again after a stop is ignored.
        remembered = config.output / WANDB_FILE
        if not remembered.exists():
            write_text(remembered, uuid.uuid4().hex)
        self._run: Any = wandb.init(
            project=project, id=remembered.read_text(), resume="allow", name=config.output.name, config=described,
            dir=str(config.output),
        )  # fmt: skip

    def scalars(self, scalars: dict[str, float], step: int) -> None:
        self._run.log(scalars, step=step)

    def audio(self, name: str, samples: np.ndarray, sample_rate: int, step: int) -> None:
        self._run.log({name: self._wandb.Audio(samples, sample_rate)}, step=step)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._run.log({name: self._wandb.Image(pixels)}, step=step)

    def close(self) -> None:
        self._run.finish()
