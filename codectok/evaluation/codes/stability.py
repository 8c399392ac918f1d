"""Stability of codes: the share that stays equal when a clip is shifted, cut, made quieter, or given noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from codectok.codecs.base import AudioCodec
from codectok.errors import AudioError
from codectok.evaluation.metrics.base import Quantity

QUIET_DECIBELS = -6.0
NOISE_DECIBELS = 40.0
_SHARE = "share of equal codes, 0 to 1"
QUANTITIES = (
    Quantity("stable_shift_1", "higher", f"{_SHARE}, if the clip begins 1 sample later"),
    Quantity("stable_shift_quarter", "higher", f"{_SHARE}, if the clip begins a quarter of a frame later"),
    Quantity("stable_shift_half", "higher", f"{_SHARE}, if the clip begins half a frame later"),
    Quantity("stable_shift_frame", "higher", f"{_SHARE} of the same audio, if the clip begins one frame later"),
    Quantity("stable_cut", "higher", f"{_SHARE} of the same audio, without the first half of the clip"),
    Quantity("stable_quiet", "higher", f"{_SHARE}, if the clip is 6 dB quieter"),
    Quantity("stable_noise", "higher", f"{_SHARE}, with white noise 40 dB below the clip"),
)


@dataclass(frozen=True)
class _Variant:
    """A changed clip; its frame i holds the audio of frame i + `frames_later` of the original."""

    name: str
    samples: np.ndarray
    frames_later: int = 0


def stability(codec: AudioCodec, samples: np.ndarray, codes: np.ndarray, seed: int) -> dict[str, float | None]:
    """Measure the share of codes, over frames and codebooks, that stay equal in changed clips.

    A change is undefined (None) if less than one frame is left, if no frames remain to compare, or if the codec refuses
    the changed clip as too short; a change of level or noise also for a silent clip. All changed clips are encoded in
    one batch.

    Args:
        codec: to measure.
        samples: float32 [n] at the codec's rate.
        codes: integers [n_frames, n_codebooks] of `samples`.
        seed: of the noise.

    Raises:
        AudioError: the codec refuses a changed clip for another reason.
    """
    shares: dict[str, float | None] = {quantity.name: None for quantity in QUANTITIES}
    variants = list(_variants(samples, len(codes), codec.frame_size, seed))
    encoded = codec.encode_clips(([variant.samples] for variant in variants), codec.sample_rate)
    for variant, found in zip(variants, encoded, strict=True):
        if isinstance(found, Tensor):
            shares[variant.name] = _share_of_equal(codes[variant.frames_later :], found.cpu().numpy())
        elif found.reason != "too_short":
            raise AudioError(f"A changed clip ({variant.name}) cannot be encoded: {found}", found.reason)
    return shares


def _variants(samples: np.ndarray, n_frames: int, frame_size: int, seed: int) -> Iterator[_Variant]:
    def from_sample(name: str, start: int, frames_later: int = 0) -> Iterator[_Variant]:
        if len(samples) - start >= frame_size:
            yield _Variant(name, samples[start:], frames_later)

    yield from from_sample("stable_shift_1", 1)
    yield from from_sample("stable_shift_quarter", frame_size // 4)
    yield from from_sample("stable_shift_half", frame_size // 2)
    yield from from_sample("stable_shift_frame", frame_size, 1)
    if n_frames > 1:
        half = n_frames // 2
        yield from from_sample("stable_cut", half * frame_size, half)
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    if power > 0:
        yield _Variant("stable_quiet", samples * np.float32(10 ** (QUIET_DECIBELS / 20)))
        noise = np.random.default_rng(seed).standard_normal(len(samples), np.float32)
        scale = np.sqrt(power / 10 ** (NOISE_DECIBELS / 10) / np.mean(np.square(noise, dtype=np.float64)))
        yield _Variant("stable_noise", samples + noise * np.float32(scale))


def _share_of_equal(codes: np.ndarray, other: np.ndarray) -> float | None:
    n_frames = min(len(codes), len(other))
    return float(np.mean(codes[:n_frames] == other[:n_frames])) if n_frames else None
