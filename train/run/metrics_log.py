"""What a run says of itself: means over windows of steps, to TensorBoard, Weights & Biases and whoever listens."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from codectok.atomic import write_text
from codectok.errors import CodectokError, InputError
from codectok.train.config import TrainConfig
from codectok.train.trainer.trainer import Trainer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TENSORBOARD_FOLDER = "tensorboard"
# By which Weights & Biases knows the run.
WANDB_FILE = "wandb-id"
# What all terms of the generator's loss add up to.
LOSS = "generator"

LogListener = Callable[[int, dict[str, float]], None]


class RunLog:
    """Means over the steps between two logged ones, and how the codebooks are used.

    Every rank has one and calls it alike; the first writes.

    Args:
        figures: further ones of this rank, at the end of a window.
        on_log: hears of everything that is written.
        advice: what the message about a run that has diverged says one can do.
    """

    def __init__(
        self,
        config: TrainConfig,
        trainer: Trainer,
        figures: Callable[[], dict[str, float]],
        on_log: LogListener,
        advice: Callable[[], str],
    ) -> None:
        self._config, self._trainer, self._figures, self._on_log, self._advice = (
            config, trainer, figures, on_log, advice
        )  # fmt: skip
        self._main = f"mel_{config.loss.mel[0].n_fft}"
        self._lowest_error = math.inf
        self._first_loss: Tensor | None = None
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._sinks: list[_TensorBoard | _WeightsAndBiases] = []
        if trainer.ranks.is_first:
            self._sinks.append(_TensorBoard(config, trainer.step))
            if config.wandb_project is not None:
                self._sinks.append(_WeightsAndBiases(config, config.wandb_project))
        self._start_window()

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Take in a step; every `log_interval` steps the window is written."""
        if self._first_loss is None:
            self._first_loss = self._trainer.ranks.mean(scalars[LOSS].clone())
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._steps += 1
        if self._trainer.step % self._config.log_interval == 0:
            error = self.flush()[self._main]
            self._lowest_error = min(self._lowest_error, error)
            self._start_window()

    def flush(self) -> dict[str, float]:
        """Write what has come in of the window, if anything has, and return it; the window stays open.

        Raises:
            CodectokError: the run has diverged, see `check`.
        """
        if not self._steps:
            return {}
        self.check()
        scalars = self._means()
        scalars |= {name: float(value) for name, value in self._trainer.network.quantizer.codebook_metrics().items()}
        elapsed = time.monotonic() - self._started - self._paused_seconds
        n_steps = self._steps - self._steps_before
        samples = n_steps * self._config.data.batch_size * self._config.segment_samples
        scalars["audio_seconds_per_second"] = samples / self._config.codec.mel.sample_rate / elapsed
        scalars["steps_per_second"] = n_steps / elapsed
        scalars |= self._figures()
        self.write(scalars)
        return scalars

    def check(self) -> None:
        """Stop a run that has diverged, before it is saved.

        Its losses are no finite numbers any more; or the mel error is `explosion` times what it was in its best
        window; or the generator's loss is `loss_explosion` times that of the first step: the mel error has a bound, of
        which the first steps are not far, and would not tell.

        Raises:
            CodectokError: that has happened.
        """
        means = self._means()
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            self._stop(f"{', '.join(broken)} is not a finite number")
        config, error, loss = self._config, means.get(self._main, 0.0), means.get(LOSS, 0.0)
        if error > config.explosion * self._lowest_error:
            lowest = f"{self._lowest_error:.3g} at its best"
            self._stop(f"{self._main} is {error:.3g}, after {lowest} (explosion={config.explosion:g})")
        if self._first_loss is not None and loss > config.loss_explosion * float(self._first_loss):
            first = f"{float(self._first_loss):.3g} at the first step"
            self._stop(f"the generator's loss is {loss:.3g}, after {first} (loss_explosion={config.loss_explosion:g})")

    def _stop(self, reason: str) -> None:
        raise CodectokError(f"Training diverged: at step {self._trainer.step} {reason}; {self._advice()}.")

    def state_dict(self) -> dict[str, Any]:
        """What is remembered of the steps so far, the same on all ranks; every rank is to call this."""
        return {
            "lowest_error": self._lowest_error,
            "first_loss": self._first_loss,
            "window": {"sums": self._totals(), "counts": dict(self._counts), "steps": self._steps},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the window in which `state_dict` was taken."""
        self._lowest_error, self._first_loss = state["lowest_error"], state["first_loss"]
        window = state["window"]
        self._sums, self._counts, self._steps = dict(window["sums"]), dict(window["counts"]), window["steps"]
        self._steps_before = self._steps

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
        totals = self._totals()
        if not totals:
            return {}
        values = torch.stack(list(totals.values())).tolist()
        return {name: value / self._counts[name] for name, value in zip(totals, values, strict=True)}

    def _totals(self) -> dict[str, Tensor]:
        """The window's sums, means over all ranks."""
        if not self._sums:
            return {}
        sums = torch.stack([total.to(self._trainer.device) for total in self._sums.values()])
        return dict(zip(self._sums, self._trainer.ranks.mean(sums).unbind(), strict=True))

    def _start_window(self) -> None:
        self._sums = {}
        self._counts = {}
        self._steps = self._steps_before = 0
        self._started, self._paused_seconds = time.monotonic(), 0.0


def check_sinks(config: TrainConfig) -> None:
    """See that what figures are to be written with is installed; `InputError` where it is not."""
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
        import wandb

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
