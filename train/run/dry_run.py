"""Dry run: takes a few real steps to measure memory and time of a run."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from codectok.codec import Codec
from codectok.config import CodecConfig
from codectok.device import resolve_device
from codectok.train.config import TrainConfig
from codectok.train.data.loader import SegmentLoader
from codectok.train.data.segments import SegmentReader
from codectok.train.data.stream import Stage
from codectok.train.data.workers import worker_errors
from codectok.train.memory import (
    codebook_memory_errors,
    keep_freed_memory,
    network_memory_errors,
    peak_memory,
    reset_peak_memory,
    step_memory_errors,
    validation_memory_errors,
)
from codectok.train.trainer.trainer import Trainer
from codectok.train.trainer.warm_start import check_initial_config, has_initial_checkpoint

from .codebook_init import CodebookInitCost, measure_codebook_init
from .preparation import RunInputs, prepare
from .resume import resume_from_checkpoint

STEPS = 2


@dataclass(frozen=True)
class StageSummary:
    """Data of a stage.

    Attributes:
        segments: number of samples.
        seconds: their duration.
        mixture: shares of the sources, None if there is a single one.
    """

    segments: int
    seconds: float
    mixture: str | None


@dataclass(frozen=True)
class DryRunReport:
    """Requirements of a run on each of its ranks.

    Attributes:
        stages: training data.
        parameters: number of the codec's parameters.
        discriminator_parameters: number of the discriminators' parameters.
        codebook_init: cost of initializing the codebooks, None if the run does not initialize any.
        seconds_per_step: time of the last step, with the adversary.
        peak_bytes: peak memory of the GPU, or of this process on a CPU; includes an estimated codebook initialization.
    """

    stages: tuple[StageSummary, ...]
    parameters: int
    discriminator_parameters: int
    codebook_init: CodebookInitCost | None
    seconds_per_step: float
    peak_bytes: int


@worker_errors()
def dry_run(config: TrainConfig, n_ranks: int = 1, initial_config: CodecConfig | None = None) -> DryRunReport:
    """Initialize the codebooks, take two steps on the first batches, and validate one clip.

    This process does the work of one rank, except for communication. Nothing is written to the output.

    Args:
        config: of the run.
        n_ranks: number of ranks that will share each batch.
        initial_config: configuration of the codec in `init_from`, if an earlier run has yet to train it.

    Raises:
        InputError: the data cannot be used, or memory is too small.
    """
    device = resolve_device(config.device)
    keep_freed_memory(device)
    reset_peak_memory(device)  # of an earlier stage
    inputs = prepare(config, n_ranks)
    with _initial_checkpoint(_config_of_rank(config, n_ranks), initial_config) as own_config, network_memory_errors():
        trainer = Trainer(own_config, device, will_load_state=inputs.will_load_state)
    before = peak_memory(device)
    codebook_init = _initialize(trainer, inputs)
    trainer.step = max(trainer.step, config.discriminators.start_step)
    with step_memory_errors(config, n_ranks):
        seconds = _seconds_per_step(trainer, inputs.reader)
    if inputs.validation is not None:
        with validation_memory_errors():
            inputs.validation.dry_run(trainer)
    estimated = codebook_init.estimated_bytes if codebook_init is not None else None
    return DryRunReport(
        stages=tuple(_summary(stage) for stage in inputs.reader.stream.stages),
        parameters=sum(p.numel() for p in trainer.network.parameters()),
        discriminator_parameters=sum(p.numel() for p in trainer.adversary.parameters()),
        codebook_init=codebook_init,
        seconds_per_step=seconds,
        peak_bytes=max(peak_memory(device), before + (estimated or 0)),
    )


def _config_of_rank(config: TrainConfig, n_ranks: int) -> TrainConfig:
    """Configuration of a single-process run that does the work of one of `n_ranks` ranks."""
    data = config.data.model_copy(update={"batch_size": config.data.batch_size // n_ranks})
    return config.model_copy(update={"data": data})


@contextmanager
def _initial_checkpoint(config: TrainConfig, initial_config: CodecConfig | None) -> Iterator[TrainConfig]:
    """Yield `config`, with an untrained codec in place of an `init_from` that does not exist yet."""
    place = config.init_from
    if place is None or initial_config is None or has_initial_checkpoint(place):
        yield config
        return
    check_initial_config(initial_config, config.codec, place, with_quantizer=bool(config.train_only))
    with tempfile.TemporaryDirectory(prefix="codectok-") as folder:
        codec = Path(folder) / "codec"
        Codec.from_config(initial_config, device="cpu").save_pretrained(codec)
        yield config.model_copy(update={"init_from": codec})


def _initialize(trainer: Trainer, inputs: RunInputs) -> CodebookInitCost | None:
    """Initialize the codebooks or resume, as the run does before its first step."""
    config = trainer.config
    if inputs.checkpoint is not None:
        return None
    if config.resume_from is not None:
        resume_from_checkpoint(trainer, config.resume_from)
        return None
    with codebook_memory_errors(), closing(iter(_loader(trainer, inputs.reader))) as batches:
        return measure_codebook_init(trainer, (batch.filled() for batch in batches))


def _loader(trainer: Trainer, reader: SegmentReader) -> SegmentLoader:
    return SegmentLoader(reader, trainer.config.data, pin_memory=trainer.device.type == "cuda")


def _seconds_per_step(trainer: Trainer, reader: SegmentReader) -> float:
    seconds = 0.0
    with closing(iter(_loader(trainer, reader))) as batches:
        for batch in itertools.islice(batches, STEPS):
            started = time.monotonic()
            trainer.train_step(batch.filled())
            if trainer.device.type == "cuda":
                torch.cuda.synchronize(trainer.device)
            seconds = time.monotonic() - started
    return seconds


def _summary(stage: Stage) -> StageSummary:
    return StageSummary(
        segments=sum(len(source.order) for source in stage.sources),
        seconds=sum(source.seconds for source in stage.sources),
        mixture=stage.describe() if len(stage.sources) > 1 else None,
    )
