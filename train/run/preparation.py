"""Checks and inputs of a run, the same for a real run and a dry run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from codectok.errors import InputError, PassingError
from codectok.train.config import TrainConfig
from codectok.train.data.segments import SegmentReader
from codectok.train.data.validation import validation_clips
from codectok.train.distributed import Ranks

from .checkpoint import latest_checkpoint, step_of
from .metrics_log import check_writers
from .output import CHECKPOINT_FOLDER, check_output
from .resume import check_resume_checkpoint
from .validation import Validation


@dataclass(frozen=True)
class RunInputs:
    """Inputs of a run.

    Attributes:
        reader: training segments.
        validation: None if not configured.
        checkpoint: newest checkpoint of this run, None if it starts now.
        will_load_state: True if the weights come from a training state, of this run or another one.
    """

    reader: SegmentReader
    validation: Validation | None
    checkpoint: Path | None
    will_load_state: bool


def prepare(config: TrainConfig, n_ranks: int) -> RunInputs:
    """Check the configuration against `n_ranks`, output, packages and data, and open the data. Writes nothing.

    Raises:
        InputError: the run cannot be started.
    """
    check_batch_size(config, n_ranks)
    check_output(config)
    check_writers(config)
    reader, validation = open_segments(config), open_validation(config)
    checkpoint = latest_checkpoint(config.output / CHECKPOINT_FOLDER)
    if checkpoint is None and config.resume_from is not None:
        check_resume_checkpoint(config.resume_from)
    will_load_state = checkpoint is not None or config.resume_from is not None
    return RunInputs(reader, validation, checkpoint, will_load_state)


def check_same_checkpoint(checkpoint: Path | None, ranks: Ranks, device: torch.device) -> None:
    """Check that all ranks resume from the same checkpoint; waits for all ranks.

    Raises:
        PassingError: a file server shows an older state of the output to one of them.
    """
    step = -1 if checkpoint is None else step_of(checkpoint)
    if ranks.any(ranks.of_first(step, device) != step, device):
        raise PassingError("The ranks see different checkpoints in the output; run the same command again.")


def check_batch_size(config: TrainConfig, n_ranks: int) -> None:
    """Check that `n_ranks` ranks can share a batch evenly.

    Raises:
        InputError: they cannot.
    """
    divisor = config.accumulation * n_ranks
    if config.data.batch_size % divisor:
        raise InputError(
            f"A batch of {config.data.batch_size} cannot be shared evenly by {n_ranks} ranks in"
            f" {config.accumulation} microbatches each; set data.batch_size to a multiple of {divisor}."
        )


def open_segments(config: TrainConfig) -> SegmentReader:
    """Open the training segments of a run."""
    return SegmentReader(config.data, config.codec.mel.sample_rate, config.segment_samples, config.seed)


def open_validation(config: TrainConfig) -> Validation | None:
    """Read the validation clips of a run, if configured."""
    wanted = config.validation
    if wanted is None:
        return None
    min_samples = max(config.codec.min_samples, config.codec.frame_size)
    return Validation(validation_clips(wanted, config.data, config.codec.mel.sample_rate, min_samples), wanted.listen)
