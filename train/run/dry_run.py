"""One real step before a long run: does it fit, and how long will the whole take?"""

from __future__ import annotations

import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from codectok.codec import Codec
from codectok.config import CodecConfig
from codectok.device import resolve_device
from codectok.train.config import TrainConfig
from codectok.train.data.loader import SegmentLoader, worker_deaths_explained
from codectok.train.data.segments import SegmentDataset
from codectok.train.data.stream import Stage
from codectok.train.memory import batch_fits, keep_freed_memory, networks_fit, start_fits, validation_fits
from codectok.train.trainer.trainer import Trainer
from codectok.train.trainer.warm_start import check_ancestor, has_ancestor

from .checkpoint import latest_checkpoint
from .codebook_init import CodebookStart, try_start
from .metrics_log import check_sinks
from .resume import check_origin, take_over
from .run import CHECKPOINT_FOLDER, check_output, check_shares, open_dataset, open_validation

STEPS = 2


@dataclass(frozen=True)
class StageFacts:
    """Data of a stage; `mixture` where it has several sources."""

    segments: int
    seconds: float
    mixture: str | None


@dataclass(frozen=True)
class Rehearsal:
    """What a run needs, on each of its ranks.

    Attributes:
        stages: what is trained on, one after the other.
        parameters, discriminator_parameters: numbers of them.
        start: of the codebooks, where the run begins with one.
        seconds_per_step: of one step with the adversary, after a first one.
        peak_bytes: most memory that was in use at once, of the GPU, or of this process on a CPU; or that the start
            will take, where that is estimated and more.
    """

    stages: tuple[StageFacts, ...]
    parameters: int
    discriminator_parameters: int
    start: CodebookStart | None
    seconds_per_step: float
    peak_bytes: int


@worker_deaths_explained()
def rehearse(config: TrainConfig, n_ranks: int = 1, ancestor: CodecConfig | None = None) -> Rehearsal:
    """Start the codebooks, make two steps on the first batches and a validation of one clip, and forget them.

    This process does what each of the ranks will do, but for what they exchange. Nothing is written except, for a
    while, a codec to learn from.

    Args:
        config: of the run.
        n_ranks: that will share its batches.
        ancestor: what the codec in `init_from` will be, where an earlier run is still to make it.

    Raises:
        InputError: data that cannot be used, or too little memory.
    """
    device = resolve_device(config.device)
    keep_freed_memory(device)
    check_shares(config, n_ranks)
    check_output(config)
    check_sinks(config)
    dataset = open_dataset(config)
    validation = open_validation(config)
    with _as_if_inherited(_share(config, n_ranks), ancestor) as own, networks_fit():
        trainer = Trainer(own, device)
    before = _peak_bytes(device)
    start = _begin(trainer, dataset)
    trainer.step = max(trainer.step, config.discriminators.start_step)
    with batch_fits(config, n_ranks):
        seconds = _seconds_per_step(trainer, dataset)
    if validation is not None:
        with validation_fits():
            validation.try_out(trainer)
    estimated = start.estimated_bytes if start is not None else None
    return Rehearsal(
        stages=tuple(_facts_of(stage) for stage in dataset.stream.stages),
        parameters=sum(p.numel() for p in trainer.network.parameters()),
        discriminator_parameters=sum(p.numel() for p in trainer.adversary.parameters()),
        start=start,
        seconds_per_step=seconds,
        peak_bytes=max(_peak_bytes(device), before + (estimated or 0)),
    )


def _share(config: TrainConfig, n_ranks: int) -> TrainConfig:
    """What one of the ranks does, as a run of its own."""
    data = config.data.model_copy(update={"batch_size": config.data.batch_size // n_ranks})
    return config.model_copy(update={"data": data})


@contextmanager
def _as_if_inherited(config: TrainConfig, ancestor: CodecConfig | None) -> Iterator[TrainConfig]:
    """`config`, with an untrained codec to learn from where the one in `init_from` is still to be made."""
    place = config.init_from
    if place is None or ancestor is None or has_ancestor(place):
        yield config
        return
    check_ancestor(ancestor, config.codec, place)
    with tempfile.TemporaryDirectory(prefix="codectok-") as folder:
        codec = Path(folder) / "codec"
        Codec.from_config(ancestor, device="cpu").save_pretrained(codec)
        yield config.model_copy(update={"init_from": codec})


def _begin(trainer: Trainer, dataset: SegmentDataset) -> CodebookStart | None:
    """What the run does before its first step; nothing where it goes on from a checkpoint of its own."""
    config = trainer.config
    if latest_checkpoint(config.output / CHECKPOINT_FOLDER) is not None:
        return None
    if config.resume_from is not None:
        check_origin(config.resume_from)
        take_over(trainer, config.resume_from)
        return None
    with start_fits():
        return try_start(trainer, (batch.filled() for batch in SegmentLoader(dataset, config.data)))


def _seconds_per_step(trainer: Trainer, dataset: SegmentDataset) -> float:
    seconds = 0.0
    for batch in itertools.islice(SegmentLoader(dataset, trainer.config.data), STEPS):
        started = time.monotonic()
        trainer.train_step(batch.filled())
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
        seconds = time.monotonic() - started
    return seconds


def _facts_of(stage: Stage) -> StageFacts:
    return StageFacts(
        segments=sum(len(source.order) for source in stage.sources),
        seconds=sum(source.seconds for source in stage.sources),
        mixture=stage.describe() if len(stage.sources) > 1 else None,
    )


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Kilobytes, but bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
