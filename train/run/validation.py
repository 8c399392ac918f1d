"""Validation: reconstructs clips that are not trained on, and logs errors, audio and spectrograms."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from codectok.evaluation.codes.codebook import CodebookUse
from codectok.evaluation.metrics.speech_quality import installed_measures
from codectok.train.trainer.trainer import Trainer

from .metrics_log import VALIDATION, MetricsLog

ERROR = f"{VALIDATION}mel"


class Validation:
    """Validates a codec in training on fixed clips.

    Args:
        clips: float32 [n] each, at the codec's rate.
        listen: number of clips whose audio and spectrograms are logged.
    """

    def __init__(self, clips: Sequence[np.ndarray], listen: int) -> None:
        self.clips = clips
        self._listen = listen
        self._measures = installed_measures()

    def run(self, trainer: Trainer, log: MetricsLog) -> float:
        """Reconstruct the clips, shared among the ranks, and log the metrics.

        Returns:
            Mean absolute difference of log-mels (natural logarithm).
        """
        config, ranks = trainer.config.codec, trainer.ranks
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        use = torch.zeros(config.quantizer.n_codebooks, config.quantizer.codebook_size, dtype=torch.float64)
        for number in clips_of_rank(len(self.clips), ranks.rank, ranks.world_size, self._listen):
            original, reconstruction, error, codes = _reconstruct(trainer, self.clips[number])
            sums[ERROR] += error
            counts[ERROR] += 1
            for row, column in zip(use, codes.T, strict=True):
                row += torch.bincount(column, minlength=len(row))
            for name, measure in self._measures.items():
                value = measure(original, reconstruction, config.mel.sample_rate)
                if value is not None:
                    sums[VALIDATION + name] += value
                    counts[VALIDATION + name] += 1
            if number < self._listen:
                _log_clip(log, trainer, number, original, reconstruction)
        names = [ERROR, *(VALIDATION + name for name in self._measures)]
        shared = [torch.tensor([[sums[name], counts[name]] for name in names], dtype=torch.float64), use]
        # Sums over the ranks, computed from means.
        totals, use = (ranks.mean(values.to(trainer.device)).cpu() * ranks.world_size for values in shared)
        scalars = {name: float(total / count) for name, (total, count) in zip(names, totals, strict=True) if count}
        uses = [CodebookUse.of(row.round().long().numpy()) for row in use]
        scalars[f"{VALIDATION}codebook_usage"] = float(np.mean([book.used_share for book in uses]))
        scalars[f"{VALIDATION}codebook_entropy"] = float(np.mean([book.entropy for book in uses]))
        log.write(trainer.step, scalars)
        return scalars[ERROR]

    def dry_run(self, trainer: Trainer) -> None:
        """Reconstruct and measure the longest clip, without logging."""
        original, reconstruction, _, _ = _reconstruct(trainer, max(self.clips, key=len))
        for measure in self._measures.values():
            measure(original, reconstruction, trainer.config.codec.mel.sample_rate)


def clips_of_rank(n_clips: int, rank: int, world_size: int, listen: int) -> range:
    """Numbers of the clips that a rank reconstructs; clips to be logged go to the first rank."""
    first = min(n_clips, max(listen, math.ceil(n_clips / world_size)))
    return range(first) if rank == 0 else range(first + rank - 1, n_clips, world_size - 1)


@torch.no_grad()
def _reconstruct(trainer: Trainer, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, Tensor]:
    """Return the clip cut to whole frames, its reconstruction, their log-mel difference and codes [n, n_codebooks]."""
    frame_size = trainer.config.codec.frame_size
    original = torch.from_numpy(samples[: len(samples) // frame_size * frame_size]).to(trainer.device)[None]
    trainer.network.eval()
    try:
        with trainer.averaged(), trainer.autocast():
            output = trainer.network(trainer.log_mel(original))
    finally:
        trainer.network.train()
    generated = output.waveform.float()
    error = (trainer.log_mel(generated) - trainer.log_mel(original)).abs().mean()
    return original[0].cpu().numpy(), generated[0].cpu().numpy(), float(error), output.quantizer.codes[0].cpu()


def _log_clip(log: MetricsLog, trainer: Trainer, number: int, original: np.ndarray, reconstruction: np.ndarray) -> None:
    for kind, samples in (("original", original), ("reconstruction", reconstruction)):
        name = f"{VALIDATION}{number}/{kind}"
        log.audio(trainer.step, name, np.clip(samples, -1, 1))
        log_mel = trainer.log_mel(torch.from_numpy(samples).to(trainer.device)[None])[0].T.flip(0)
        low, high = np.log(1e-5), 2.0
        log.image(trainer.step, name, ((log_mel - low) / (high - low)).clamp(0, 1).cpu().numpy())
