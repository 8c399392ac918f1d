"""Stability of codes under shifts, cuts, level and noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from codectok import Codec
from codectok.codecs.whole_clip_codec import WholeClipCodec
from codectok.errors import AudioError
from codectok.evaluation.codes.stability import QUANTITIES, stability
from tests.helpers.codecs import noise
from tests.helpers.storage import DATA

RATE, FRAME = 8000, 16
NAMES = [quantity.name for quantity in QUANTITIES]


class HandMadeCodec(WholeClipCodec):
    """Two codes a frame, from sums of its samples; a subclass chooses them."""

    name, sample_rate, frame_size = "hand-made", RATE, FRAME
    codebook_size, n_codebooks, fingerprint = 1 << 12, 2, "0" * 64

    def __init__(self) -> None:
        super().__init__("cpu")
        self.batches = 0

    def codes_of(self, frames: Tensor) -> Tensor:
        raise NotImplementedError

    def encode_samples(self, samples: Tensor) -> Tensor:
        self.batches += 1
        frames = torch.nn.functional.pad(samples, (0, -samples.shape[1] % FRAME)).reshape(len(samples), -1, FRAME)
        return self.codes_of(frames)

    def decode_codes(self, codes: Tensor) -> Tensor:
        return codes[..., 0].repeat_interleave(FRAME, 1).float()


class ShapeCodec(HandMadeCodec):
    """The place of the largest sample, which level does not change; and 0."""

    def codes_of(self, frames: Tensor) -> Tensor:
        place = frames.abs().argmax(2)
        return torch.stack([place, torch.zeros_like(place)], 2)


class EnergyCodec(HandMadeCodec):
    """The energy in steps of 3 dB, and its half steps."""

    def codes_of(self, frames: Tensor) -> Tensor:
        decibels = 10 * (frames.square().sum(2) + 1e-9).log10() + 100
        return torch.stack([(decibels / 3).long(), (decibels / 1.5).long()], 2)


def _measured(codec: HandMadeCodec, samples: np.ndarray, seed: int = 0) -> dict[str, float | None]:
    return stability(codec, samples, codec.encode(samples, RATE).numpy(), seed)


def test_codes_that_depend_on_shape_survive_whole_frames_and_level() -> None:
    found = _measured(ShapeCodec(), noise(40 * FRAME))
    assert list(found) == NAMES
    assert found["stable_shift_frame"] == found["stable_cut"] == found["stable_quiet"] == 1
    # The second codebook never changes.
    assert found["stable_shift_half"] is not None
    assert 0.5 <= found["stable_shift_half"] < 0.75


def test_codes_that_depend_on_level_change_when_it_does() -> None:
    samples = np.sin(np.arange(50 * FRAME) * 2 * np.pi / FRAME).astype(np.float32)  # a period a frame
    found = _measured(EnergyCodec(), samples)
    assert found["stable_quiet"] == 0
    # The energy of a period is the same everywhere, and the last frame loses half of it.
    assert found["stable_shift_half"] == pytest.approx(1 - 1 / 50)
    assert found["stable_shift_frame"] == found["stable_cut"] == 1
    assert found["stable_noise"] is not None
    assert found["stable_noise"] > 0.9


def test_frames_are_compared_with_frames_of_the_same_audio() -> None:
    rising = np.repeat(np.arange(1, 31, dtype=np.float32) / 30, FRAME)
    found = _measured(EnergyCodec(), rising)
    assert found["stable_shift_frame"] == found["stable_cut"] == 1


def test_noise_is_forty_decibels_below_the_clip() -> None:
    class Recorder(EnergyCodec):
        def encode_samples(self, samples: Tensor) -> Tensor:
            clips.extend(samples.numpy().copy())
            return super().encode_samples(samples)

    clips: list[np.ndarray] = []
    samples = 0.3 * noise(4000)
    _measured(Recorder(), samples, seed=1)
    _measured(Recorder(), samples, seed=1)
    _measured(Recorder(), samples, seed=2)
    first, again, other = (clips[n] for n in (7, 15, 23))
    difference = first.astype(np.float64) - samples
    assert 10 * np.log10(np.mean(samples.astype(np.float64) ** 2) / np.mean(difference**2)) == pytest.approx(
        40, abs=0.01
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("n_samples", "defined"),
    [
        (1, ["stable_quiet", "stable_noise"]),
        (FRAME, ["stable_quiet", "stable_noise"]),
        (FRAME + 1, ["stable_shift_1", "stable_quiet", "stable_noise"]),
        (
            2 * FRAME - 1,
            ["stable_shift_1", "stable_shift_quarter", "stable_shift_half", "stable_quiet", "stable_noise"],
        ),
        (2 * FRAME, NAMES),
    ],
)
def test_changes_of_short_clips_are_undefined(n_samples: int, defined: list[str]) -> None:
    found = _measured(ShapeCodec(), noise(n_samples))
    assert [name for name, share in found.items() if share is not None] == defined


def test_a_codec_with_a_least_length_refuses_no_clip() -> None:
    codec = ShapeCodec()
    codec.min_samples = 3 * FRAME
    found = _measured(codec, noise(4 * FRAME))
    assert [name for name, share in found.items() if share is None] == ["stable_cut"]


def test_silence_has_no_level() -> None:
    found = _measured(ShapeCodec(), np.zeros(5 * FRAME, np.float32))
    assert [name for name, share in found.items() if share is None] == ["stable_quiet", "stable_noise"]


def test_a_failing_codec_is_an_error() -> None:
    class Failing(ShapeCodec):
        def encode_samples(self, samples: Tensor) -> Tensor:
            raise ValueError("no")

    samples = noise(5 * FRAME)
    with pytest.raises(AudioError, match="stable_shift_1"):
        stability(Failing(), samples, np.zeros((5, 2), np.int64), 0)


def test_own_codec_is_stable_where_its_context_allows() -> None:
    codec = Codec.from_distilcodec(DATA / "golden" / "student", step=42, device="cpu")
    samples = noise(24_000)
    codes = codec.encode(samples, codec.sample_rate).numpy()
    found = stability(codec, samples, codes, 0)
    assert found == stability(codec, samples, codes, 0)
    assert all(share is not None and 0 <= share <= 1 for share in found.values())
    frame, half = found["stable_shift_frame"], found["stable_shift_half"]
    assert frame is not None
    assert half is not None
    assert frame > 0.7 > half
