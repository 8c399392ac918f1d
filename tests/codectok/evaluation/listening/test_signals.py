"""Signals of a listening test, against values computed by hand or required by ITU-R BS.1534 and BS.1770."""

from __future__ import annotations

import math

import numpy as np
import pytest

from codectok.evaluation.listening.signals import (
    LARGEST_PEAK,
    TARGET_LOUDNESS,
    fitted,
    level_stimuli,
    loudest_start,
    loudness,
    low_anchor,
)
from tests.helpers.audio import tone

RATE = 48_000


def sine(frequency: float, seconds: float = 2.0, amplitude: float = 1.0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


@pytest.mark.parametrize(("frequency", "lowest", "highest"), [(100, -0.1, 0.1), (3000, -0.1, 0.1), (3500, -0.1, 0.1)])
def test_anchor_passes_below_cutoff(frequency: float, lowest: float, highest: float) -> None:
    assert lowest <= gain_of_anchor(frequency) <= highest


@pytest.mark.parametrize(("frequency", "highest"), [(4000, -25), (4500, -50), (12_000, -50)])
def test_anchor_stops_above_cutoff(frequency: float, highest: float) -> None:
    assert gain_of_anchor(frequency) <= highest


def gain_of_anchor(frequency: float) -> float:
    before = sine(frequency)
    after = low_anchor(before, RATE)
    assert len(after) == len(before)
    inner = slice(RATE // 2, -RATE // 2)
    return 20 * math.log10(np.sqrt((after[inner] ** 2).mean()) / np.sqrt((before[inner] ** 2).mean()) + 1e-9)


def test_anchor_has_no_delay() -> None:
    click = np.zeros(RATE, np.float32)
    click[20_000] = 1
    assert int(np.argmax(np.abs(low_anchor(click, RATE)))) == 20_000


@pytest.mark.parametrize("decibels", [0.0, -20.0])
def test_loudness_of_sine_equals_standard(decibels: float) -> None:
    # BS.1770: a sine of 997 Hz at full scale in one channel has -3.01 LKFS.
    assert loudness(sine(997, amplitude=10 ** (decibels / 20)), RATE) == pytest.approx(-3.01 + decibels, abs=0.02)


def test_loudness_ignores_silent_blocks() -> None:
    loud = sine(997, 4, 0.1)
    with_pause = np.concatenate([loud, np.zeros(8 * RATE, np.float32)])
    assert loudness(with_pause, RATE) == pytest.approx(loudness(loud, RATE), abs=0.4)
    assert loudness(np.zeros(RATE, np.float32), RATE) == -math.inf


def test_levelled_stimuli_have_loudness_of_reference() -> None:
    reference = tone(3, RATE, 400)
    others = {"quiet": reference * 0.2, "loud": reference * 2, "silent": np.zeros_like(reference)}
    levelled_reference, levelled = level_stimuli(reference, others, RATE, keep_levels=False)
    assert loudness(levelled_reference, RATE) == pytest.approx(TARGET_LOUDNESS, abs=0.1)
    for name in ("quiet", "loud"):
        np.testing.assert_allclose(levelled[name], levelled_reference, atol=1e-5)
    assert not levelled["silent"].any()


def test_levelled_stimuli_share_a_gain_below_full_scale() -> None:
    quiet, peaky = sine(997, 2, 0.01), sine(997, 2, 0.01)
    peaky[RATE] = 5.0
    reference, levelled = level_stimuli(quiet, {"peaky": peaky}, RATE, keep_levels=True)
    assert np.abs(levelled["peaky"]).max() == pytest.approx(LARGEST_PEAK)
    assert np.abs(reference).max() == pytest.approx(0.01 * LARGEST_PEAK / 5, rel=1e-3)


def test_stimuli_begin_and_end_in_silence() -> None:
    reference, _ = level_stimuli(np.ones(RATE, np.float32), {}, RATE, keep_levels=True)
    assert reference[0] == reference[-1] == 0
    assert reference[RATE // 2] == pytest.approx(LARGEST_PEAK)


def test_loudest_excerpt_is_found() -> None:
    samples = np.concatenate([np.zeros(RATE), 0.1 * np.ones(RATE), np.ones(RATE), np.zeros(RATE)]).astype(np.float32)
    assert loudest_start(samples, RATE, RATE) == 2 * RATE
    assert loudest_start(samples[:1000], RATE, RATE) == 0


def test_fitted_cuts_and_pads() -> None:
    samples = np.ones(5, np.float32)
    assert fitted(samples, 3).tolist() == [1, 1, 1]
    assert fitted(samples, 7).tolist() == [1, 1, 1, 1, 1, 0, 0]
