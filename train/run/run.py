"""One training run on one rank: steps, logging, validation, checkpoints, and the codec at the end."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from codectok.checkpoints.native import is_checkpoint
from codectok.errors import CheckpointError, CodectokError, InputError, PassingError
from codectok.monitoring.events import EventSink
from codectok.train.config import TrainConfig
from codectok.train.data.batches import Batch
from codectok.train.data.loader import Damaged, SegmentLoader
from codectok.train.distributed import Ranks
from codectok.train.memory import (
    codebook_memory_errors,
    network_memory_errors,
    step_memory_errors,
    validation_memory_errors,
)
from codectok.train.trainer.trainer import Trainer

from .checkpoint import (
    checkpoint_errors,
    checkpoint_name,
    latest_checkpoint,
    load_training_state,
    remove_old_checkpoints,
    save_training_state,
)
from .divergence import DivergenceMonitor
from .lock import OutputLock
from .metrics_log import MetricsCallback, MetricsLog
from .output import (
    BEST_FOLDER,
    CHECKPOINT_FOLDER,
    CODEC_FOLDER,
    claim_output,
    config_text,
    holds_codec_of,
    write_codec,
)
from .preparation import check_same_checkpoint, prepare
from .resume import resume_from_checkpoint
from .window import MetricsWindow

# Ranks stop after the same step, and have to wait for each other to agree on it.
STEPS_BETWEEN_AGREEMENTS = 10

Ending = Literal["finished", "already finished", "out of time", "interrupted"]


class StopFlag(Protocol):
    """Tells a run to stop, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """True if the run is to stop."""


@dataclass(frozen=True)
class TrainingReport:
    """How a run ended.

    Attributes:
        ending: why it ended.
        step: number of steps taken.
        codec: folder of the final codec, None if the run was interrupted.
        best: folder of the codec with the lowest validation error, None if that is the final one or unknown.
        stop_requested: True if a stop was requested, even after the last step; no other run should follow.
    """

    ending: Ending
    step: int
    codec: Path | None
    best: Path | None = None
    stop_requested: bool = False


class TrainingRun:
    """A new or resumed run on one rank.

    Raises:
        InputError: data, output or configuration cannot be used.
        PassingError: another training uses the output, or has just used it.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        ranks: Ranks,
        on_metrics: MetricsCallback,
        events: EventSink | None = None,
    ) -> None:
        inputs = prepare(config, ranks.world_size)
        ranks.barrier()  # all ranks must have checked the output before the first one writes to it
        with ExitStack() as held:
            if ranks.is_first:
                held.enter_context(OutputLock(config.output))
                if latest_checkpoint(config.output / CHECKPOINT_FOLDER) != inputs.checkpoint:
                    raise PassingError(
                        f"Another training has written to {config.output} meanwhile; run the same command again."
                    )
                claim_output(config)
            check_same_checkpoint(inputs.checkpoint, ranks, device)
            self._config, self._ranks, self._on_metrics, self._events = config, ranks, on_metrics, events
            self._reader, self._validation, self._checkpoint = inputs.reader, inputs.validation, inputs.checkpoint
            self._checkpoints, self._device = config.output / CHECKPOINT_FOLDER, device
            self._loader = self._new_loader()
            with network_memory_errors():
                self._trainer = Trainer(config, device, ranks, inputs.will_load_state)
            self._divergence = DivergenceMonitor(config)
            self._best: tuple[float, int] | None = None
            self._held = held.pop_all()

    def run(self, stop: StopFlag) -> TrainingReport:
        """Train to the last step, or until time is up or `stop` is set; the output is free for another run then."""
        with self._held:
            return self._run(stop)

    def _run(self, stop: StopFlag) -> TrainingReport:
        config, trainer = self._config, self._trainer
        codec = config.output / CODEC_FOLDER
        state: dict[str, Any] | None = None
        if self._checkpoint is not None:
            state = self._load(self._checkpoint)
            self._remove_old_checkpoints()  # a run that was killed while it saved has not done so
            if trainer.step >= config.steps and self._is_written():
                best = config.output / BEST_FOLDER
                return TrainingReport("already finished", trainer.step, codec, best if is_checkpoint(best) else None)
        else:
            self._initialize()
        log = MetricsLog(config, trainer.step, self._ranks.is_first, self._on_metrics, self._events)
        with closing(log):
            window = MetricsWindow(self._ranks, trainer.device)
            if state is not None:
                assert self._checkpoint is not None, "the state comes from it"
                with checkpoint_errors(self._checkpoint):
                    window.load_state_dict(state["log"]["window"])
            ending = self._train(log, window, stop)
            self._log_window(log, window)
        if ending == "interrupted":
            return TrainingReport(ending, trainer.step, None)
        return TrainingReport(ending, trainer.step, codec, self._export(codec))

    def _is_written(self) -> bool:
        is_written = holds_codec_of(self._config.output, self._trainer.step)
        return bool(self._ranks.of_first(int(is_written), self._device))

    def _initialize(self) -> None:
        """Resume from another run if configured, otherwise initialize the codebooks."""
        checkpoint = self._config.resume_from
        if checkpoint is None:
            with codebook_memory_errors(), closing(iter(self._loader)) as batches:
                self._trainer.initialize_codebooks(batch.filled() for batch in batches)
            self._loader = self._new_loader()
            return
        state = resume_from_checkpoint(self._trainer, checkpoint)
        if state["data_hash"] == self._reader.stream.hash_before(state["position"]):
            self._loader.position = state["position"]
        elif self._ranks.is_first:
            logging.getLogger(__name__).warning(
                f"The shards differ from the shards of {checkpoint}; reading restarts at the beginning."
            )

    def _new_loader(self) -> SegmentLoader:
        on_gpu = self._device.type == "cuda"
        return SegmentLoader(
            self._reader, self._config.data, 0, self._ranks.rank, self._ranks.world_size, pin_memory=on_gpu
        )

    def _train(self, log: MetricsLog, window: MetricsWindow, stop: StopFlag) -> Ending:
        if self._trainer.step >= self._config.steps:  # stopped before the codec was written
            self._validate(log)
            return "finished"
        with closing(iter(self._loader)) as batches:
            return self._train_on(batches, log, window, stop)

    def _train_on(self, batches: Iterator[Batch], log: MetricsLog, window: MetricsWindow, stop: StopFlag) -> Ending:
        config, trainer = self._config, self._trainer
        deadline = time.monotonic() + config.max_minutes * 60 if config.max_minutes else math.inf
        ending: Ending | None = None
        while ending is None:
            self._step(next(batches), log, window)
            ending = self._ending(stop, deadline)
            # Every written codec is validated first, so that the best one is known.
            to_validate = ending in ("finished", "out of time") or (
                config.validation is not None and trainer.step % config.validation.interval == 0
            )
            if to_validate or ending is not None or trainer.step % config.checkpoint_interval == 0:
                self._check_divergence(window.means())
                with window.paused():
                    if to_validate:
                        self._validate(log)
                    log.flush()
                    self._save(window)
                    log.checkpoint(trainer.step, self._checkpoints / checkpoint_name(trainer.step))
        return ending

    def _step(self, batch: Batch, log: MetricsLog, window: MetricsWindow) -> None:
        trainer = self._trainer
        with step_memory_errors(self._config, self._ranks.world_size):
            losses = trainer.train_step(batch.filled())
            self._divergence.observe_step(losses, self._ranks)
            window.add(losses)
            if trainer.step % self._config.log_interval == 0:
                self._divergence.observe_window(self._log_window(log, window))
                window.reset()

    def _ending(self, stop: StopFlag, deadline: float) -> Ending | None:
        """Why the run ends with this step, None if it continues; the same on all ranks."""
        ranks, step, device = self._ranks, self._trainer.step, self._trainer.device
        is_last = step >= self._config.steps
        if ranks.world_size > 1 and step % STEPS_BETWEEN_AGREEMENTS and not is_last:
            return None
        if ranks.any(stop.is_set(), device):
            return "interrupted"
        if is_last:
            return "finished"
        return "out of time" if ranks.any(time.monotonic() > deadline, device) else None

    def _log_window(self, log: MetricsLog, window: MetricsWindow) -> dict[str, float]:
        """Check and write the metrics of the window so far, if there are any."""
        if window.is_empty:
            return {}
        config, trainer = self._config, self._trainer
        metrics = window.means()
        self._check_divergence(metrics)
        metrics |= {name: float(value) for name, value in trainer.network.quantizer.codebook_metrics().items()}
        speed = window.steps_per_second()
        batch_seconds = config.data.batch_size * config.segment_samples / config.codec.mel.sample_rate
        metrics |= {"audio_seconds_per_second": speed * batch_seconds, "steps_per_second": speed}
        n_unreadable = torch.tensor(float(self._loader.damaged.total), device=trainer.device)
        metrics["unreadable_samples"] = float(self._ranks.mean(n_unreadable) * self._ranks.world_size)
        log.write(trainer.step, metrics)
        return metrics

    def _check_divergence(self, metrics: dict[str, float]) -> None:
        reason = self._divergence.reason(metrics)
        if reason is not None:
            raise self._diverged(f"at step {self._trainer.step} {reason}")

    def _diverged(self, reason: str) -> CodectokError:
        last = latest_checkpoint(self._checkpoints)
        advice = "lower the learning rate and train into another output"
        if last is not None:
            advice = f"{advice}, resuming from the last good checkpoint: resume_from={last}"
        return CodectokError(f"Training diverged: {reason}; {advice}.")

    def _validate(self, log: MetricsLog) -> None:
        if self._validation is None:
            return
        with validation_memory_errors():
            error = self._validation.run(self._trainer, log)
        if self._best is None or error < self._best[0]:
            self._best = (error, self._trainer.step)

    def _save(self, window: MetricsWindow) -> None:
        trainer = self._trainer
        # Checked on every rank, though all have the same weights: an error on one rank leaves the others waiting.
        if not all(bool(parameter.isfinite().all()) for parameter in trainer.network.parameters()):
            raise self._diverged(f"after step {trainer.step} weights are infinite")
        window_state = window.state_dict()
        damaged = self._ranks.gather(torch.tensor([astuple(self._loader.damaged)], device=self._device)).tolist()
        if not self._ranks.is_first:
            return
        state = {
            **trainer.state_dict(),
            "position": self._loader.position,
            "data_hash": self._reader.stream.hash_before(self._loader.position),
            "best": self._best,
            "validation": self._validation_settings(),
            "damaged": damaged,
            "log": {**self._divergence.state_dict(), "window": window_state},
        }
        save_training_state(self._checkpoints, trainer.step, state, config_text(self._config))
        self._remove_old_checkpoints()

    def _remove_old_checkpoints(self) -> None:
        if self._ranks.is_first:
            remove_old_checkpoints(self._checkpoints, self._config.keep_checkpoints, self._best and self._best[1])

    def _load(self, checkpoint: Path) -> dict[str, Any]:
        state = load_training_state(checkpoint)
        with checkpoint_errors(checkpoint):
            same_data = state["data_hash"] == self._reader.stream.hash_before(state["position"])
        if not same_data:
            raise InputError("The shards differ from the shards that the run started with; train into another output.")
        with checkpoint_errors(checkpoint):
            self._trainer.load_state_dict(state)
            self._divergence.load_state_dict(state["log"])
            self._load_damaged(state.get("damaged", []))
        self._loader.position = state["position"]
        if state["validation"] == self._validation_settings():  # errors on other clips cannot be compared
            self._best = state["best"]
        return state

    def _load_damaged(self, counts: list[list[int]]) -> None:
        """Restore the counts of damaged samples, those in a row only for the same number of ranks."""
        ranks = self._ranks
        if len(counts) == ranks.world_size:
            self._loader.damaged = Damaged(*counts[ranks.rank])
        elif ranks.is_first:
            self._loader.damaged = Damaged(sum(total for total, _ in counts))

    def _validation_settings(self) -> str | None:
        """The settings on which validation errors depend."""
        wanted = self._config.validation
        return None if wanted is None else wanted.model_dump_json(exclude={"interval", "listen"})

    def _export(self, folder: Path) -> Path | None:
        """Write the final codec, and the best one if it is another; return the folder of the latter."""
        trainer, best_folder = self._trainer, self._config.output / BEST_FOLDER
        best_step = None if self._best is None or self._best[1] == trainer.step else self._best[1]
        if self._ranks.is_first:
            final = trainer.export()
            if best_step is None:
                shutil.rmtree(best_folder, ignore_errors=True)
            else:
                try:
                    trainer.load_state_dict(load_training_state(self._checkpoints / checkpoint_name(best_step)))
                    write_codec(trainer.export(), best_folder)
                except CheckpointError as error:
                    logging.getLogger(__name__).warning(f"There will be no {best_folder.name}: {error}")
                    shutil.rmtree(best_folder, ignore_errors=True)  # of an earlier ending
            write_codec(final, folder)  # last: it says that the run has finished
        self._ranks.barrier()
        return best_folder if best_step is not None and is_checkpoint(best_folder) else None
