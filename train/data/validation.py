"""Reads the clips for validation, which are never trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codectok.errors import AudioError, InputError

from .config import DataConfig, Place, ValidationConfig
from .segments import decode
from .sources import IndexCache, Shard, list_shards, read_audio_files


def validation_clips(
    config: ValidationConfig, data: DataConfig, sample_rate: int, min_samples: int
) -> list[np.ndarray]:
    """Read the validation clips, float32 [n] each, in the order of their shards; the same in every run.

    Args:
        config: which clips to read.
        data: the training data, whose samples are not used.
        sample_rate: of the codec, in Hz.
        min_samples: shorter clips are skipped.

    Raises:
        InputError: shards cannot be used, a sample is damaged, or all samples of a folder are trained on.
    """
    trained = {_real(place) for stage in data.all_stages for source in stage.sources for place in source.shards}
    shards = [shard for place in config.shards for shard in _held_out(place, _real(place) in trained, sample_rate)]
    starts = np.concatenate([[0], np.cumsum([shard.n_samples for shard in shards])]).astype(int)
    total = int(starts[-1])
    if not total:
        raise InputError(f"There are no segments for validation in {', '.join(map(str, config.shards))}.")
    indices = IndexCache(1)
    clips: list[np.ndarray] = []
    for number in range(min(config.clips, total)):
        place = number * total // min(config.clips, total)
        shard = int(np.searchsorted(starts, place, side="right")) - 1
        address = indices.address(shards[shard], place - int(starts[shard]))
        clip = np.empty(min(address.n_samples, round(config.max_seconds * sample_rate)), np.float32)
        if len(clip) < min_samples:
            continue
        clips.append(clip)
        try:
            decode(address, read_audio_files([address])[0], sample_rate, 0, clip)
        except AudioError as error:
            raise InputError(f"{error} It is a validation clip; write the shards again.") from None
    if not clips:
        raise InputError(
            f"All clips for validation are shorter than {min_samples / sample_rate:.3f} s, the shortest that the"
            " codec can encode; name other shards, or raise validation.max_seconds."
        )
    return clips


def _held_out(place: Place, trained_on: bool, sample_rate: int) -> list[Shard]:
    found = list_shards((place,), None, "validation", sample_rate)
    if not found and trained_on:
        raise InputError(
            f"All segments in {place} are trained on and none is left for validation; shard with --validation"
            " 0.01, or name other shards."
        )
    return found or list_shards((place,), None, "train", sample_rate)


def _real(place: Place) -> Place:
    return place.resolve() if isinstance(place, Path) else place
