"""One training run: data, steps, validation, checkpoints, and the codec at its end."""

from __future__ import annotations

import itertools
import json
import logging
import math
import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import yaml

from codectok.atomic import write_text
from codectok.checkpoints import is_checkpoint
from codectok.config import load_mapping
from codectok.errors import CodectokError, InputError
from codectok.train.config import TrainConfig, changed_keys
from codectok.train.data.loader import SegmentLoader
from codectok.train.data.segments import SegmentDataset
from codectok.train.data.validation import validation_clips
from codectok.train.distributed import Ranks
from codectok.train.memory import batch_fits, networks_fit, start_fits, validation_fits
from codectok.train.trainer.trainer import Trainer

from .checkpoint import (
    CONFIG_FILE,
    checkpoint_name,
    latest_checkpoint,
    load_training_state,
    remove_old_checkpoints,
    save_training_state,
)
from .metrics_log import LogListener, RunLog, check_sinks
from .resume import check_origin, take_over
from .validation import Validation

CHECKPOINT_FOLDER = "checkpoints"
CODEC_FOLDER = "codec"
BEST_FOLDER = "codec-best"
# Ranks stop after the same step, and have to wait for each other to agree on it.
STEPS_BETWEEN_AGREEMENTS = 10

Ending = Literal["finished", "already finished", "out of time", "interrupted"]


class Flag(Protocol):
    """What says that a run is to stop."""

    def is_set(self) -> bool:
        """Whether it is."""


@dataclass(frozen=True)
class TrainingReport:
    """How a run ended.

    Attributes:
        codec: as it is at the end; None where the run was interrupted.
        best: the one with the lowest validation error, where that is another and there was a validation.
        to_stop: whether what stops a run has come, be it after the last step: no other run is to follow.
    """

    ending: Ending
    step: int
    codec: Path | None
    best: Path | None = None
    to_stop: bool = False


class TrainingRun:
    """A run, or its continuation, on one of the ranks."""

    def __init__(self, config: TrainConfig, device: torch.device, ranks: Ranks, on_log: LogListener) -> None:
        check_shares(config, ranks.world_size)
        check_output(config)
        check_sinks(config)
        ranks.wait()  # until all have looked: what the first one writes next is not foreign
        self._config, self._ranks, self._on_log = config, ranks, on_log
        self._checkpoints = config.output / CHECKPOINT_FOLDER
        self._dataset = open_dataset(config)
        self._validation = open_validation(config)
        self._loader = SegmentLoader(self._dataset, config.data, 0, ranks.rank, ranks.world_size)
        if config.resume_from is not None and latest_checkpoint(self._checkpoints) is None:
            check_origin(config.resume_from)
        # Not before data and recipe are known to be usable: a run that never began stands in nobody's way.
        if ranks.is_first:
            claim_output(config)
        ranks.wait()
        self._checkpoint = latest_checkpoint(self._checkpoints)
        goes_on = self._checkpoint is not None or config.resume_from is not None
        with networks_fit():
            self._trainer = Trainer(config, device, ranks, goes_on)
        self._best: tuple[float, int] | None = None

    def run(self, interrupted: Flag) -> TrainingReport:
        """Train until the end, or until time is up or `interrupted` is set."""
        config, trainer = self._config, self._trainer
        codec = config.output / CODEC_FOLDER
        state: dict[str, Any] | None = None
        if self._checkpoint is not None:
            state = self._load(self._checkpoint)
            if trainer.step >= config.steps and is_checkpoint(codec):
                best = config.output / BEST_FOLDER
                return TrainingReport("already finished", trainer.step, codec, best if is_checkpoint(best) else None)
        elif config.resume_from is not None:
            self._begin_with(config.resume_from)
        else:
            self._start_codebooks()
        logged = RunLog(config, trainer, self._figures, self._on_log, self._advice)
        if state is not None:
            logged.load_state_dict(state["log"])
        with closing(logged) as log:
            ending = self._steps(log, interrupted)
            log.flush()
        if ending == "interrupted":
            return TrainingReport(ending, trainer.step, None)
        return TrainingReport(ending, trainer.step, codec, self._export(codec))

    def _start_codebooks(self) -> None:
        with start_fits():
            self._trainer.initialize_codebooks(batch.filled() for batch in self._loader)
        self._loader = SegmentLoader(self._dataset, self._config.data, 0, self._ranks.rank, self._ranks.world_size)

    def _begin_with(self, checkpoint: Path) -> None:
        """Take over the state of another run."""
        state = take_over(self._trainer, checkpoint)
        if state["data_hash"] == self._dataset.stream.hash_before(state["position"]):
            self._loader.position = state["position"]
        elif self._ranks.is_first:
            logging.getLogger(__name__).warning(
                f"The shards are not those that {checkpoint} has heard; they are heard from their beginning."
            )

    def _steps(self, log: RunLog, interrupted: Flag) -> Ending:
        config, trainer = self._config, self._trainer
        deadline = time.monotonic() + config.max_minutes * 60 if config.max_minutes else math.inf
        if trainer.step >= config.steps:  # it was stopped before the codec was written
            self._judge(log)
            return "finished"
        for batch in itertools.islice(self._loader, config.steps - trainer.step):
            with batch_fits(config, self._ranks.world_size):
                log.add(trainer.train_step(batch.filled()))
            ending = self._ending(interrupted, deadline)
            # Every codec that is written has been judged, so that none is better than the best.
            due = ending in ("finished", "out of time") or (
                config.validation is not None and trainer.step % config.validation.interval == 0
            )
            if due or ending is not None or trainer.step % config.checkpoint_interval == 0:
                log.check()
                with log.paused():
                    if due:
                        self._judge(log)
                    self._save(log)
            if ending is not None:
                return ending
        raise AssertionError("the last step is an ending")

    def _ending(self, interrupted: Flag, deadline: float) -> Ending | None:
        """Whether the step that has been made is the last one, and why; the same on all ranks."""
        ranks, step, device = self._ranks, self._trainer.step, self._trainer.device
        last = step >= self._config.steps
        if ranks.world_size > 1 and step % STEPS_BETWEEN_AGREEMENTS and not last:
            return None
        if ranks.any(interrupted.is_set(), device):
            return "interrupted"
        if last:
            return "finished"
        return "out of time" if ranks.any(time.monotonic() > deadline, device) else None

    def _judge(self, log: RunLog) -> None:
        if self._validation is None:
            return
        with validation_fits():
            error = self._validation.run(self._trainer, log)
        if self._best is None or error < self._best[0]:
            self._best = (error, self._trainer.step)

    def _figures(self) -> dict[str, float]:
        count = torch.tensor(float(self._loader.n_unreadable), device=self._trainer.device)
        return {"unreadable_samples": float(self._ranks.mean(count) * self._ranks.world_size)}

    def _save(self, log: RunLog) -> None:
        trainer = self._trainer
        # On every rank, though all have the same weights: who is left alone with an error leaves the others waiting.
        if not all(bool(parameter.isfinite().all()) for parameter in trainer.network.parameters()):
            raise CodectokError(f"Training diverged: after step {trainer.step} weights are infinite; {self._advice()}.")
        logged = log.state_dict()
        if not self._ranks.is_first:
            return
        state = {
            **trainer.state_dict(),
            "position": self._loader.position,
            "data_hash": self._dataset.stream.hash_before(self._loader.position),
            "best": self._best,
            "validation": self._validation_described(),
            "log": logged,
        }
        save_training_state(self._checkpoints, trainer.step, state, describe(self._config))
        remove_old_checkpoints(self._checkpoints, self._config.keep_checkpoints, self._best and self._best[1])

    def _load(self, checkpoint: Path) -> dict[str, Any]:
        state = load_training_state(checkpoint)
        if state["data_hash"] != self._dataset.stream.hash_before(state["position"]):
            raise InputError("The shards are not those that the run has started with; train into another output.")
        self._trainer.load_state_dict(state)
        self._loader.position = state["position"]
        if state["validation"] == self._validation_described():  # errors on other clips say nothing
            self._best = state["best"]
        return state

    def _validation_described(self) -> str | None:
        wanted = self._config.validation
        return None if wanted is None else wanted.model_dump_json(exclude={"interval", "listen"})

    def _export(self, codec: Path) -> Path | None:
        """Write the codec, and the best one if that is another."""
        best = self._config.output / BEST_FOLDER
        found = self._best is not None and self._best[1] != self._trainer.step
        if self._ranks.is_first:
            _write_codec(self._trainer, codec)
            if self._best is not None and found:
                checkpoint = self._checkpoints / checkpoint_name(self._best[1])
                self._trainer.load_state_dict(load_training_state(checkpoint))
                _write_codec(self._trainer, best)
            else:
                shutil.rmtree(best, ignore_errors=True)
        self._ranks.wait()
        return best if found else None

    def _advice(self) -> str:
        last = latest_checkpoint(self._checkpoints)
        advice = "lower the learning rate and train into another output"
        return advice if last is None else f"{advice}, on from the last good checkpoint: resume_from={last}"


def check_shares(config: TrainConfig, n_ranks: int) -> None:
    """Refuse a batch that so many ranks cannot share evenly with an `InputError`."""
    share = config.accumulation * n_ranks
    if config.data.batch_size % share:
        raise InputError(
            f"A batch of {config.data.batch_size} cannot be shared evenly by {n_ranks} ranks in"
            f" {config.accumulation} parts each; set data.batch_size to a multiple of {share}."
        )


def open_dataset(config: TrainConfig) -> SegmentDataset:
    """The run's training segments."""
    return SegmentDataset(config.data, config.codec.mel.sample_rate, config.segment_samples, config.seed)


def open_validation(config: TrainConfig) -> Validation | None:
    """The clips that the run is judged by, if there are any."""
    wanted = config.validation
    if wanted is None:
        return None
    least = max(config.codec.min_samples, config.codec.frame_size)
    return Validation(validation_clips(wanted, config.data, config.codec.mel.sample_rate, least), wanted.listen)


def claim_output(config: TrainConfig) -> None:
    """Make the output folder this run's, and refuse one that holds another run, or anything else.

    Raises:
        InputError: that is so.
    """
    check_output(config)
    write_text(config.output / CONFIG_FILE, describe(config))


def describe(config: TrainConfig) -> str:
    """The whole configuration as YAML."""
    return yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False)


def check_output(config: TrainConfig) -> None:
    """Refuse an output folder that holds another run, or anything else, with an `InputError`."""
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


def _write_codec(trainer: Trainer, folder: Path) -> None:
    """A kill on the way leaves the old one, none, or the new one, never a part."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    trainer.export().save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
