"""Controls: the original, silence, noise, Opus and Codec2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codectok.errors import AudioError, CodectokError
from codectok.evaluation.controls import programs as tools
from codectok.evaluation.controls.controls import CONTROLS, CodedControl, Control
from codectok.evaluation.controls.ogg import payload_bytes
from codectok.evaluation.controls.programs import pipe

RATE = 24_000
BY_NAME = {control.name: control for control in CONTROLS}
CODED = [control for control in CONTROLS if isinstance(control, CodedControl)]
BITS_PER_SECOND = {"opus_6k": 6000, "codec2_1200": 1200}


def _voice(n_samples: int, sample_rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A buzz of 120 Hz in syllables of random loudness."""
    time = np.arange(n_samples) / sample_rate
    harmonics = np.arange(1, 20)
    levels = np.exp(-(((harmonics * 120 - 600) / 900) ** 2))
    buzz = (np.sin(2 * np.pi * 120 * harmonics * time[:, np.newaxis]) * levels).sum(1)
    loudness = np.random.default_rng(seed).random(1 + int(time[-1] / 0.1))[(time / 0.1).astype(int)]
    return (0.1 * buzz * loudness).astype(np.float32)


def _installed(control: Control) -> None:
    if not control.available():
        pytest.skip(f"needs {control.package}")


def _lag(original: np.ndarray, reconstruction: np.ndarray, most: int) -> int:
    """Samples by which the loudness of the reconstruction follows the original."""
    window = np.hanning(241)
    one, other = (np.convolve(np.abs(samples), window, "same") for samples in (original, reconstruction))
    inner = slice(most, len(one) - most)
    lags = range(-most, most + 1, 6)
    return max(lags, key=lambda lag: np.corrcoef(one[inner], np.roll(other, -lag)[inner])[0, 1])


@pytest.mark.parametrize("control", CONTROLS, ids=BY_NAME.get)
@pytest.mark.parametrize(("n_samples", "rate"), [(1, RATE), (1200, RATE), (1, 48_000), (801, 16_000), (4001, 11_025)])
def test_reconstruction_has_the_length_of_the_clip(control: Control, n_samples: int, rate: int) -> None:
    _installed(control)
    samples = _voice(n_samples, rate)
    found = control.reconstruct(samples, rate, 0)
    assert found.dtype == np.float32
    assert found.shape == samples.shape
    assert np.isfinite(found).all()
    assert np.array_equal(found, control.reconstruct(samples, rate, 0))


def test_floors_and_ceiling() -> None:
    samples = _voice(RATE)
    original, silence, noise = (
        BY_NAME[name].reconstruct(samples, RATE, 7) for name in ("original", "silence", "noise")
    )
    assert np.array_equal(original, samples)
    assert not np.shares_memory(original, samples)
    assert not silence.any()
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(np.sqrt(np.mean(samples**2)), rel=1e-4)
    assert abs(np.corrcoef(noise, samples)[0, 1]) < 0.05
    assert not np.array_equal(noise, BY_NAME["noise"].reconstruct(samples, RATE, 8))


@pytest.mark.parametrize("control", CODED, ids=lambda control: control.name)
def test_coded_control_is_aligned_and_has_its_rate(control: CodedControl) -> None:
    _installed(control)
    samples = _voice(4 * RATE)
    encoded = control.encode(samples, RATE)
    assert encoded == control.encode(samples, RATE)
    bits = control.payload_bits(encoded) / 4
    assert bits == pytest.approx(BITS_PER_SECOND[control.name], rel=0.03)
    decoded = control.decode(encoded, len(samples), RATE)
    loudness = np.sqrt(np.mean(decoded**2) / np.mean(samples**2))
    assert 0.3 < loudness < 3
    assert abs(_lag(samples, decoded, 960)) <= 240  # 10 ms, a quarter of a frame of Codec2


@pytest.mark.parametrize("control", CONTROLS, ids=BY_NAME.get)
@pytest.mark.parametrize(
    ("samples", "reason"),
    [(np.zeros(0, np.float32), "empty"), (np.array([0, np.nan], np.float32), "not_finite")],
)
def test_unusable_clip_is_refused(control: Control, samples: np.ndarray, reason: str) -> None:
    with pytest.raises(AudioError) as refused:
        control.reconstruct(samples, RATE, 0)
    assert refused.value.reason == reason


@pytest.mark.parametrize("control", CODED, ids=lambda control: control.name)
def test_loud_clips_are_limited(control: CodedControl) -> None:
    _installed(control)
    found = control.reconstruct(40 * _voice(RATE), RATE, 0)
    assert np.abs(found).max() < 3


@pytest.mark.parametrize("control", CODED, ids=lambda control: control.name)
def test_missing_program_is_named(control: CodedControl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not control.available()
    assert control.missing_tools() == control.tools
    with pytest.raises(CodectokError, match=f"{control.tools[0]}.*{control.package}"):
        control.reconstruct(np.zeros(100, np.float32), RATE, 0)


def test_message_of_a_failing_program_is_shown() -> None:
    with pytest.raises(CodectokError, match=r"sh failed .*exit code 3.*: bad input\."):
        pipe(["sh", "-c", "echo first >&2; echo bad input >&2; exit 3"], b"", 1.0, None)
    with pytest.raises(CodectokError, match=r"signal 9.*no message"):
        pipe(["sh", "-c", "kill -9 $$"], b"", 1.0, None)
    with pytest.raises(CodectokError, match="no message"):
        pipe(["true"], b"", 1.0, None)


def test_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "BASE_SECONDS", 0.2)
    with pytest.raises(CodectokError, match="did not end"):
        pipe(["sleep", "30"], b"", 0.0, None)


def test_payload_of_an_ogg_file_is_counted() -> None:
    def page(segments: list[int]) -> bytes:
        return b"OggS" + bytes(22) + bytes([len(segments), *segments]) + bytes(sum(segments))

    # Headers of 19 and 300 bytes, then packets of 15, 255 and 260 bytes, one of them over two pages.
    data = page([19]) + page([255, 45]) + page([15, 255, 0, 255]) + page([5])
    assert payload_bytes(data) == 15 + 255 + 260
    for damaged in (data[:-1], data[:-10], data[:40], b"x" + data[1:], data + b"O"):
        with pytest.raises(CodectokError, match="damaged"):
            payload_bytes(damaged)


@pytest.mark.slow
@pytest.mark.parametrize("control", CODED, ids=lambda control: control.name)
def test_ten_minutes_can_be_coded(control: CodedControl) -> None:
    _installed(control)
    samples = np.tile(_voice(60 * RATE), 10)
    assert len(control.reconstruct(samples, RATE, 0)) == len(samples)
