"""Imported DistilCodec checkpoints reproduce the reference (random weights, one codebook and 2 x 3 codebooks)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from codectok import Codec


@pytest.fixture
def codec(golden: Path) -> Codec:
    return Codec.from_distilcodec(golden, step=42, device="cpu")


@pytest.fixture
def expected(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "expected.npz") as file:
        return dict(file)


@pytest.fixture
def waveform(golden: Path) -> np.ndarray:
    samples, sample_rate = soundfile.read(golden / "audio_24k.wav", dtype="float32")
    assert sample_rate == 24_000
    return samples


def relative_error(found: torch.Tensor, reference: np.ndarray) -> float:
    return float(np.abs(found.detach().numpy() - reference).max() / np.abs(reference).max())


def test_mel_and_encoder_features_equal_reference(
    codec: Codec, expected: dict[str, np.ndarray], waveform: np.ndarray
) -> None:
    padded = torch.nn.functional.pad(torch.from_numpy(waveform), (codec.config.left_pad, 0))
    log_mel = codec.log_mel(padded.unsqueeze(0))
    assert relative_error(log_mel[0].T, expected["log_mel"]) < 1e-4
    assert relative_error(codec.network.encoder(log_mel)[0].T, expected["encoder_features"]) < 1e-4


def test_codes_equal_reference(codec: Codec, expected: dict[str, np.ndarray], waveform: np.ndarray) -> None:
    codes = codec.encode(waveform, 24_000).numpy()
    group_major = np.concatenate(list(expected["codes"]), axis=-1)
    assert codes.shape == (expected["n_frames"], codec.n_codebooks)
    assert len(np.unique(codes)) > 50
    assert (codes == group_major[: len(codes)]).all(axis=1).mean() >= 0.999


def test_decoding_equals_reference(codec: Codec, expected: dict[str, np.ndarray]) -> None:
    codes = np.concatenate(list(expected["codes"]), axis=-1)
    features = codec.network.quantizer.decode(torch.from_numpy(codes).long().unsqueeze(0))
    assert relative_error(features[0].T, expected["features_from_codes"]) < 1e-4
    assert relative_error(features[0].T, expected["quantized"]) < 1e-4
    assert np.abs(codec.decode(codes).numpy() - expected["waveform"]).max() < 1e-4


def test_converted_checkpoint_equals_original(codec: Codec, tmp_path: Path, waveform: np.ndarray) -> None:
    codec.save_pretrained(tmp_path / "codec")
    again = Codec.from_pretrained(tmp_path / "codec", device="cpu")
    assert again.fingerprint == codec.fingerprint
    assert again.config == codec.config
    assert torch.equal(again.encode(waveform, 24_000), codec.encode(waveform, 24_000))
