"""Delays of reconstructions are found to the sample, or not at all."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from codectok.audio.resample import resample
from codectok.errors import InputError
from codectok.evaluation.metrics import alignment
from codectok.evaluation.metrics.alignment import align
from codectok.evaluation.metrics.base import Signal
from codectok.evaluation.metrics.signal import SiSdr
from tests.helpers.audio import tone, voice

RATE = 24_000
SHIFTS = (-500, -64, -63, -8, -1, 0, 1, 7, 64, 500, 2400)


@functools.cache
def _clip(kind: str) -> np.ndarray:
    if kind == "voice":
        return voice(2, RATE)
    if kind == "noise":
        return np.random.default_rng(1).normal(0, 0.1, 2 * RATE).astype(np.float32)
    return tone(2, RATE)


def _delayed(samples: np.ndarray, shift: int) -> np.ndarray:
    """A clip of the same length, late by `shift` samples."""
    if shift >= 0:
        return np.pad(samples, (shift, 0))[: len(samples)]
    return np.pad(samples, (0, -shift))[-shift:]


def _distorted(samples: np.ndarray, distortion: str) -> np.ndarray:
    generator = np.random.default_rng(2)
    if distortion == "noisy":  # as much noise as signal
        return (samples + generator.normal(0, samples.std(), len(samples))).astype(np.float32)
    if distortion == "band-limited":
        return resample(resample(samples, RATE, 8000), 8000, RATE)
    if distortion == "quiet and inverted":
        return -0.1 * samples + 0.05
    return samples


@pytest.mark.parametrize("kind", ["voice", "noise", "tone"])
@pytest.mark.parametrize("distortion", ["none", "band-limited", "quiet and inverted"])
def test_align_finds_known_shifts(kind: str, distortion: str) -> None:
    original = _clip(kind)
    reconstruction = _distorted(original, distortion)
    found = [align(Signal(original, RATE), Signal(_delayed(reconstruction, shift), RATE)).delay for shift in SHIFTS]
    assert found == list(SHIFTS)


@pytest.mark.parametrize("kind", ["voice", "noise"])
def test_align_finds_known_shifts_in_noise(kind: str) -> None:
    original = _clip(kind)
    reconstruction = _distorted(original, "noisy")
    found = [align(Signal(original, RATE), Signal(_delayed(reconstruction, shift), RATE)).delay for shift in SHIFTS]
    assert found == list(SHIFTS)


def test_aligned_pair_is_overlap() -> None:
    clip = _clip("voice")
    for shift in (-64, 8, 64):
        found = align(Signal(clip, RATE), Signal(_delayed(clip, shift), RATE), "words", "en")
        assert np.array_equal(found.pair.original.samples, found.pair.reconstruction.samples)
        assert len(found.pair.original.samples) == len(clip) - abs(shift)
        assert (found.pair.text, found.pair.language) == ("words", "en")
        assert SiSdr().measure(found.pair)["si_sdr"] == 100.0


def test_align_cuts_longer_clip_and_keeps_other_object() -> None:
    clip = _clip("voice")
    original = Signal(clip, RATE)
    longer = align(original, Signal(np.pad(clip, (8, 500)), RATE))
    assert longer.delay == 8
    assert longer.pair.original is original
    assert np.array_equal(longer.pair.reconstruction.samples, clip)
    reconstruction = Signal(clip[:-500], RATE)
    shorter = align(original, reconstruction)
    assert shorter.delay == 0
    assert shorter.pair.reconstruction is reconstruction
    assert len(shorter.pair.original.samples) == len(clip) - 500


def test_unrelated_clips_are_not_shifted() -> None:
    clip = _clip("voice")
    noise = np.random.default_rng(5).normal(0, 0.1, len(clip)).astype(np.float32)
    other = noise.copy()
    other[7] = np.nan
    original = Signal(clip, RATE)
    for samples in (noise, voice(2, RATE, pitch=170, seed=9), 0 * clip, 0 * clip + 0.5, other):
        reconstruction = Signal(samples, RATE)
        found = align(original, reconstruction)
        assert found.delay is None
        assert found.pair.original is original
        assert found.pair.reconstruction is reconstruction


def test_tiny_clips_are_cut_without_shift() -> None:
    for first, second in ((0, 0), (1, 1), (0, 5), (1, 2)):
        found = align(Signal(np.ones(first, np.float32), RATE), Signal(np.ones(second, np.float32), RATE))
        assert found.delay is None
        assert len(found.pair.original.samples) == len(found.pair.reconstruction.samples) == min(first, second)


def test_silent_start_does_not_draw_delay() -> None:
    """An overlap of faint noise could correlate better than the clip itself."""
    clip = np.concatenate([np.zeros(RATE // 4), 0.3 * np.sin(np.arange(2000) * 0.2)]).astype(np.float32)
    noisy = clip + np.random.default_rng(0).normal(0, 0.01, len(clip)).astype(np.float32)
    assert align(Signal(clip, RATE), Signal(noisy, RATE)).delay == 0


def test_delay_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = _clip("voice")
    signals = Signal(clip, RATE), Signal(_distorted(_delayed(clip, 77), "noisy")[:-900], RATE)
    assert align(*signals).delay == 77
    monkeypatch.setattr(alignment, "BLOCK", 5000)
    assert align(*signals).delay == 77


def test_align_refuses_different_rates() -> None:
    with pytest.raises(InputError, match="resample"):
        align(Signal(_clip("voice"), 24_000), Signal(_clip("voice"), 16_000))
