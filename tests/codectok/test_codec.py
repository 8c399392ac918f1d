from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from codectok import AudioError, CheckpointError, Codec, ConfigError, InputError, load_codec
from codectok.config import CodecConfig, EncoderConfig, preset
from tests.helpers.codecs import NANO, VARIANTS, make_codec, noise


@pytest.fixture(params=VARIANTS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return make_codec(VARIANTS[request.param])


@pytest.mark.parametrize("n_samples", [1, 2, 255, 256, 385, 512, 513, 5000, 24_001])
def test_codes_and_waveform_shapes(codec: Codec, n_samples: int) -> None:
    codes = codec.encode(noise(n_samples), 24_000)
    n_frames = max(1, n_samples // codec.frame_size)
    assert codes.shape == (n_frames, codec.n_codebooks)
    assert codes.dtype == torch.int64
    assert 0 <= int(codes.min()) <= int(codes.max()) < codec.codebook_size
    assert codec.decode(codes).shape == (n_frames * codec.frame_size,)


def test_saved_codec_equals_original(codec: Codec, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path / "codec")
    again = Codec.from_pretrained(tmp_path / "codec", device="cpu")
    clip = noise(10_000)
    assert again.fingerprint == codec.fingerprint
    assert again.header == codec.header
    assert torch.equal(again.encode(clip, 24_000), codec.encode(clip, 24_000))
    assert torch.equal(again.codebooks, codec.codebooks)
    with pytest.raises(InputError, match="already holds a codec"):
        codec.save_pretrained(tmp_path / "codec")


def test_encoder_without_decoder_has_equal_codes(codec: Codec, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path / "codec")
    encoder = load_codec(tmp_path / "codec", device="cpu", encoder_only=True)
    assert isinstance(encoder, Codec)
    codes = encoder.encode(noise(10_000), 24_000)
    assert torch.equal(codes, codec.encode(noise(10_000), 24_000))
    assert encoder.describe() == codec.describe()
    assert not [name for name in encoder.network.state_dict() if name.startswith("decoder")]
    uses = (
        lambda: encoder.decode(codes),
        lambda: list(encoder.decode_stream(codes)),
        lambda: encoder.reconstruct(noise(10_000), 24_000),
        lambda: encoder.save_pretrained(tmp_path / "other"),
    )
    for use in uses:
        with pytest.raises(InputError, match="without its decoder"):
            use()


def test_codebooks_shape_and_distinct_codes(codec: Codec) -> None:
    codebooks = codec.codebooks
    assert codebooks.shape[:2] == (codec.n_codebooks, codec.codebook_size)
    assert len(torch.unique(codebooks[0], dim=0)) == codec.codebook_size


def test_encode_averages_channels_and_resamples() -> None:
    codec = Codec.from_config("nano", device="cpu")
    stereo = noise(2, 48_000)
    assert torch.equal(codec.encode(stereo, 24_000), codec.encode(stereo.mean(axis=0), 24_000))
    assert torch.equal(codec.encode(torch.from_numpy(stereo), 24_000), codec.encode(stereo, 24_000))
    assert len(codec.encode(stereo, 48_000)) == 24_000 // 256


def test_seed_determines_weights() -> None:
    assert Codec.from_config("nano", seed=1).fingerprint == Codec.from_config("nano", seed=1).fingerprint
    assert Codec.from_config("nano", seed=1).fingerprint != Codec.from_config("nano", seed=2).fingerprint
    assert "untrained" in Codec.from_config("nano", seed=1).header.origin


def test_fingerprint_depends_on_left_pad_not_name() -> None:
    base = Codec.from_config(NANO).fingerprint
    assert Codec.from_config(NANO.model_copy(update={"name": "other"})).fingerprint == base
    assert Codec.from_config(NANO.model_copy(update={"left_pad": 1})).fingerprint != base


def test_fingerprint_is_stable_across_releases() -> None:
    codec = Codec.from_config("nano", device="cpu")
    for tensor in codec.network.state_dict().values():
        tensor.copy_((torch.arange(tensor.numel()) % 7 / 8).view_as(tensor))
    assert codec.fingerprint == "ef281c442b07a0a9c4a3a9b6ff43c4ccc5c0b68b79712aa8e597f12aa74b8d00"


def test_reconstruct_removes_left_pad() -> None:
    codec = Codec.from_config(NANO.model_copy(update={"left_pad": 5}))
    clip = noise(24_000)
    assert torch.equal(codec.reconstruct(clip, 24_000), codec.decode(codec.encode(clip, 24_000))[5:24_005])


@pytest.mark.parametrize(
    ("waveform", "error", "message"),
    [
        (np.zeros(0, np.float32), AudioError, "no samples"),
        (np.array([0, np.nan, 0], np.float32), AudioError, "not finite numbers, the first at 1"),
        (np.array([[0, 0], [0, np.inf]], np.float32), AudioError, "not finite"),
        (np.zeros(100, np.int16), InputError, "int16"),
        (np.zeros((2, 3, 4), np.float32), InputError, "shape"),
        (np.zeros((24_000, 2), np.float32), InputError, r"\[channels, n\]"),
    ],
)
def test_unusable_waveforms_are_refused(waveform: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Codec.from_config("nano").encode(waveform, 24_000)


@pytest.mark.parametrize("codes", [[[1024]], [[-1]], [[0, 0]], [0, 0], np.zeros((0, 1), int), [[1.7]]])
def test_unusable_codes_are_refused(codes: object) -> None:
    with pytest.raises(InputError):
        Codec.from_config("nano").decode(codes)  # type: ignore[arg-type]


def test_half_precision_waveforms_and_uint16_codes() -> None:
    codec = Codec.from_config("nano", device="cpu")
    clip = torch.from_numpy(noise(5000)).bfloat16()
    codes = codec.encode(clip, 24_000)
    assert torch.equal(codes, codec.encode(clip.float(), 24_000))
    assert torch.equal(codec.decode(codes.numpy().astype(np.uint16)), codec.decode(codes))


@pytest.mark.parametrize("sample_rate", [0, -1, "24000", 24_000.5])
def test_invalid_sample_rates_are_refused(sample_rate: object) -> None:
    with pytest.raises(InputError, match="sample rate"):
        Codec.from_config("nano").encode(noise(1000), sample_rate)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["meta", "mps", "cuda:99", "quantum"])
def test_missing_devices_are_refused(device: str) -> None:
    with pytest.raises(InputError, match=device):
        Codec.from_config("nano", device=device)


@pytest.mark.parametrize("n_samples", [1, 300, 700])
def test_reconstruction_is_not_longer_than_clip(n_samples: int) -> None:
    reconstruction = Codec.from_config("nano").reconstruct(noise(n_samples), 24_000)
    assert len(reconstruction) == min(n_samples, max(1, n_samples // 256) * 256)


def test_tf32_on_cpu_is_refused() -> None:
    with pytest.raises(InputError, match="tf32"):
        Codec.from_config("nano", device="cpu", dtype="tf32")


def test_bfloat16_codes_have_same_shape() -> None:
    clip = noise(24_000)
    codec = Codec.from_config("nano", device="cpu", dtype="bfloat16")
    assert codec.encode(clip, 24_000).shape == (93, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [("no/such/folder", "no codec folder"), ("nano", "preset without weights"), (".", "is not a codec")],
)
def test_missing_codec_folder_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        Codec.from_pretrained(name)


def test_checkpoint_with_misshapen_tensor_is_refused(tmp_path: Path) -> None:
    Codec.from_config("nano").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"codebook_size": 1024', '"codebook_size": 512'))
    with pytest.raises(CheckpointError, match=r"embedding' has shape \[1024, 32\].*expects \[512, 32\]"):
        Codec.from_pretrained(tmp_path)


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    Codec.from_config("nano").save_pretrained(tmp_path)
    model = tmp_path / "model.safetensors"
    model.write_bytes(model.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        Codec.from_pretrained(tmp_path)


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match="nano"):
        Codec.from_config("nona")


def test_presets_have_published_parameter_counts() -> None:
    from codectok.model.network import CodecNetwork

    with torch.device("meta"):
        network = CodecNetwork(CodecConfig())
    counts = [sum(p.numel() for p in part.parameters()) for part in (network.encoder, network.quantizer)]
    # The reference counts the magnitudes of weight norm in the decoder, so it is left out.
    assert counts == [77_242_368, 26_253_824]
    assert EncoderConfig() == preset("distilcodec-teacher").encoder


def test_loading_a_codec_leaves_the_compiler_of_torch_unimported(tmp_path: Path) -> None:
    Codec.from_config("nano").save_pretrained(tmp_path / "codec")
    program = (
        "import sys; from codectok import load_codec; load_codec(sys.argv[1], 'cpu').describe();"
        " print([name for name in ('torch._dynamo', 'torch._inductor', 'sympy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "codec")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("value", [1e38, -1e38])
def test_weights_whose_sum_exceeds_float32_are_finite(value: float, tmp_path: Path) -> None:
    codec = Codec.from_config("nano")
    codec.network.encoder.stem.weight.data.fill_(value)
    codec.save_pretrained(tmp_path / "codec")
    assert Codec.from_pretrained(tmp_path / "codec", "cpu").fingerprint == codec.fingerprint
