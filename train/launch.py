"""A training run from configuration to codec: resuming, logging, checkpoints, stopping."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

import torch
import yaml
from torch import Tensor

from codectok.atomic import write_text
from codectok.checkpoints import is_checkpoint
from codectok.codec import resolve_device
from codectok.config import load_mapping
from codectok.errors import InputError

from .checkpoint import latest_checkpoint, load_training_state, save_training_state
from .config import TrainConfig, changed_keys
from .data import SegmentDataset, build_loader
from .trainer import StepResult, Trainer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CONFIG_FILE = "config.yaml"
CHECKPOINT_FOLDER = "checkpoints"
TENSORBOARD_FOLDER = "tensorboard"
CODEC_FOLDER = "codec"

Ending = Literal["finished", "already finished", "out of time", "interrupted"]


@dataclass(frozen=True)
class TrainingReport:
    """How a run ended: `codec` is None where it was interrupted."""

    ending: Ending
    step: int
    codec: Path | None


def open_dataset(config: TrainConfig) -> SegmentDataset:
    """The run's training segments."""
    return SegmentDataset(config.data.shards, config.codec.mel.sample_rate, config.segment_samples, config.seed)


def run_training(config: TrainConfig, on_log: Callable[[int, dict[str, float]], None]) -> TrainingReport:
    """Train until `config.steps`, going on from the newest checkpoint in `config.output` where there is one.

    `on_log` hears of every logged step. Ctrl-C ends the run after the current step, with a checkpoint.

    Raises:
        InputError: the output folder belongs to a run with another configuration, or the data cannot be used.
        CodectokError: a loss is no longer a finite number.
    """
    checkpoints = config.output / CHECKPOINT_FOLDER
    codec_folder = config.output / CODEC_FOLDER
    _check_output(config)
    dataset = open_dataset(config)
    trainer = Trainer(config, resolve_device(config.device), dataset.hash)
    checkpoint = latest_checkpoint(checkpoints)
    if checkpoint:
        trainer.load_state_dict(load_training_state(checkpoint, trainer.device))
        if trainer.step >= config.steps and is_checkpoint(codec_folder):
            return TrainingReport("already finished", trainer.step, codec_folder)
    else:
        trainer.initialize_codebooks(dataset)
    log = _Log(config, trainer, on_log)
    write_text(config.output / CONFIG_FILE, yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False))
    ending: Ending = "finished"
    with closing(log), _stop_on_interrupt() as interrupted:
        deadline = time.monotonic() + config.max_minutes * 60 if config.max_minutes else None
        for batch in build_loader(dataset, config.data, trainer.step, config.steps):
            result = trainer.train_step(batch)
            log.add(result)
            if trainer.step % config.checkpoint_interval == 0:
                trainer.check_finite({name: float(value) for name, value in result.scalars.items()})
                _save(trainer, checkpoints)
            if interrupted.is_set():
                ending = "interrupted"
                break
            if deadline and time.monotonic() > deadline and trainer.step < config.steps:
                ending = "out of time"
                break
        log.flush()
        _save(trainer, checkpoints)
    if ending == "interrupted":
        return TrainingReport(ending, trainer.step, None)
    _export(trainer, codec_folder)
    return TrainingReport(ending, trainer.step, codec_folder)


class _Log:
    """Means over the steps between two logged ones, and codebook use over the same window."""

    def __init__(self, config: TrainConfig, trainer: Trainer, on_log: Callable[[int, dict[str, float]], None]) -> None:
        self._config, self._trainer, self._on_log = config, trainer, on_log
        self._writer = _summary_writer(config.output / TENSORBOARD_FOLDER, trainer.step)
        quantizer = config.codec.quantizer
        self._code_offsets = torch.arange(quantizer.n_codebooks, device=trainer.device) * quantizer.codebook_size
        self._start_window()

    def add(self, result: StepResult) -> None:
        """Take in a step; every `log_interval` steps the window is written."""
        for name, value in result.scalars.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        codes = result.codes.flatten(0, 1) + self._code_offsets
        self._histogram += torch.bincount(codes.flatten(), minlength=len(self._histogram))
        self._samples += self._config.data.batch_size * self._config.segment_samples
        if self._trainer.step % self._config.log_interval == 0:
            self.flush()

    def flush(self) -> None:
        """Write what has come in since the last time."""
        if not self._samples:
            return
        scalars = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        scalars |= _codebook_use(self._histogram.view(self._config.codec.quantizer.n_codebooks, -1).double())
        elapsed = time.monotonic() - self._started
        scalars["audio_seconds_per_second"] = self._samples / self._config.codec.mel.sample_rate / elapsed
        self._trainer.check_finite(scalars)
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, self._trainer.step)
        self._on_log(self._trainer.step, scalars)
        self._start_window()

    def close(self) -> None:
        """Bring everything to disk."""
        self._writer.close()

    def _start_window(self) -> None:
        quantizer, device = self._config.codec.quantizer, self._trainer.device
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._samples = 0
        size = quantizer.n_codebooks * quantizer.codebook_size
        self._histogram = torch.zeros(size, dtype=torch.int64, device=device)
        self._started = time.monotonic()


def _codebook_use(histogram: Tensor) -> dict[str, float]:
    """Share of codes used and their perplexity as a share of the codebook, means over codebooks of counts [K, N]."""
    shares = histogram / histogram.sum(1, keepdim=True)
    entropy = -(shares * shares.clamp(min=1e-12).log()).sum(1)
    size = histogram.shape[1]
    return {
        "codebook_usage": float((histogram > 0).double().mean()),
        "codebook_perplexity_share": float((entropy.exp() / size).mean()),
    }


def _check_output(config: TrainConfig) -> None:
    """Refuse an output folder that holds another run, or anything else."""
    path = config.output / CONFIG_FILE
    if latest_checkpoint(config.output / CHECKPOINT_FOLDER):
        changed = changed_keys(load_mapping(path), json.loads(config.model_dump_json()))
        if changed:
            raise InputError(
                f"{config.output} holds a run with another configuration (different: {', '.join(changed)});"
                " choose another output."
            )
    elif path.is_file():
        return  # a run that ended before its first checkpoint
    elif config.output.exists() and (not config.output.is_dir() or any(config.output.iterdir())):
        raise InputError(f"{config.output} already exists and holds no training run; choose another output.")


def _export(trainer: Trainer, folder: Path) -> None:
    """Write the codec; a kill on the way leaves the old one, none, or the new one, never a part."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    trainer.export().save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _save(trainer: Trainer, folder: Path) -> None:
    save_training_state(folder, trainer.step, trainer.state_dict(), trainer.config.keep_checkpoints)


def _summary_writer(folder: Path, step: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("Training needs tensorboard; install it with: pip install tensorboard.") from None
    # What a killed run logged after its last checkpoint is replaced.
    return SummaryWriter(str(folder), purge_step=step + 1)


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, instead of breaking into a step; a second one breaks in."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def stop(number: int, _: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
