"""One real step before a long run: does it fit, and how long will the whole take?"""

from __future__ import annotations

import itertools
import resource
import sys
import time
from dataclasses import dataclass

import torch

from codectok.errors import InputError

from .config import TrainConfig
from .data.loader import SegmentLoader
from .data.stream import Stage
from .memory import keep_freed_memory
from .ranks import join_ranks
from .run import check_output, open_dataset, open_validation
from .trainer import Trainer

STEPS = 2


@dataclass(frozen=True)
class StageFacts:
    """Data of a stage; `mixture` where it has several sources."""

    segments: int
    seconds: float
    mixture: str | None


@dataclass(frozen=True)
class Rehearsal:
    """What a run needs.

    Attributes:
        stages: what is trained on, one after the other.
        parameters, discriminator_parameters: numbers of them.
        seconds_per_step: of one step with the adversary, after a first one.
        peak_bytes: most memory that was in use at once: of the GPU, or of this process on a CPU.
    """

    stages: tuple[StageFacts, ...]
    parameters: int
    discriminator_parameters: int
    seconds_per_step: float
    peak_bytes: int


def rehearse(config: TrainConfig) -> Rehearsal:
    """Make two steps on the first batches and a validation of one clip, and forget them; nothing is written.

    What starts the codebooks is left out, and the codec to learn from where a stage before is to make it.

    Raises:
        InputError: data that cannot be used, or a GPU with too little memory.
    """
    ranks, device = join_ranks(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    check_output(config)
    dataset = open_dataset(config)
    validation = open_validation(config)
    trainer = Trainer(config, device, ranks=ranks)
    trainer.step = config.discriminators.start_step
    times = []
    try:
        for batch in itertools.islice(SegmentLoader(dataset, config.data), STEPS):
            started = time.monotonic()
            trainer.train_step(batch.filled())
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.monotonic() - started)
        if validation is not None:
            validation.try_out(trainer)
    except torch.OutOfMemoryError:
        raise InputError(
            f"A batch of {config.data.batch_size} segments in {config.accumulation} parts does not fit into the"
            " memory of the GPU; raise accumulation, or lower data.batch_size or data.segment_seconds."
        ) from None
    return Rehearsal(
        stages=tuple(_facts_of(stage) for stage in dataset.stream.stages),
        parameters=sum(p.numel() for p in trainer.network.parameters()),
        discriminator_parameters=sum(p.numel() for p in trainer.adversary.parameters()),
        seconds_per_step=times[-1],
        peak_bytes=_peak_bytes(device),
    )


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
