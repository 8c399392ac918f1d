"""Codecs of transformers: the codes are the model's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import codectok
from codectok.codecs.transformers_models.codec import TransformersCodec
from codectok.codecs.transformers_models.loading import load
from codectok.device import inference
from codectok.errors import AudioError, InputError
from tests.helpers.transformers_models import FAMILIES, own_codes, own_model

Folders = Callable[[str], Path]


def _noise(n_samples: int, seed: int) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


def _clips(codec: TransformersCodec) -> list[np.ndarray]:
    """Clips around multiples of a frame, several of one length, and neighbours that are much longer."""
    size = codec.frame_size
    lengths = [size, 7 * size - 1, 7 * size, 20 * size, 7 * size, 7 * size + 1, size + 1, 7 * size, 2 * size - 1]
    lengths += [codec.min_samples, codec.min_samples + 1]
    return [_noise(max(length, codec.min_samples), seed) for seed, length in enumerate(lengths)]


@pytest.mark.parametrize("family", FAMILIES)
def test_codes_equal_own_encode_of_clip_alone(tiny_model: Folders, family: str) -> None:
    folder = tiny_model(family)
    model = own_model(folder)
    codec = load(str(folder))
    clips = _clips(codec)
    expected = [own_codes(model, clip) for clip in clips]

    one_by_one = codec.encode_batch(clips, codec.sample_rate)
    batched = load(str(folder), batch_seconds=2.5).encode_batch(clips, codec.sample_rate)

    assert len(torch.cat([codes.reshape(-1) for codes in expected]).unique()) > 4, "codes of the test vary"
    for clip, own, single, together in zip(clips, expected, one_by_one, batched, strict=True):
        assert len(own) == codec.describe().n_frames(len(clip))
        assert torch.equal(single, own)
        assert torch.equal(together, own)


@pytest.mark.parametrize("family", FAMILIES)
def test_encoder_without_decoder_has_equal_codes(tiny_model: Folders, family: str) -> None:
    name = f"transformers:{tiny_model(family)}"
    whole = codectok.load_codec(name, "cpu", batch_seconds=2.5)
    encoder = codectok.load_codec(name, "cpu", batch_seconds=2.5, encoder_only=True)
    assert isinstance(whole, TransformersCodec) and isinstance(encoder, TransformersCodec)
    clips = _clips(whole)

    codes = encoder.encode_batch(clips, encoder.sample_rate)

    assert all(map(torch.equal, codes, whole.encode_batch(clips, whole.sample_rate)))
    assert encoder.describe() == whole.describe()
    assert torch.equal(encoder.codebooks, whole.codebooks)
    held, known = (codec.model.state_dict() for codec in (encoder, whole))
    assert held.keys() < known.keys()
    assert not [name for name in held if name.startswith(("decoder", "acoustic_decoder", "backbone", "head"))]
    with pytest.raises(InputError, match="decoder"):
        encoder.decode(codes[0])
    with pytest.raises(InputError, match="decoder"):
        encoder.reconstruct(clips[0], encoder.sample_rate)
    assert len(whole.decode(codes[0])) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_decoded_clip_is_own_decode_cut_to_its_length(tiny_model: Folders, family: str) -> None:
    folder = tiny_model(family)
    codec, model = load(str(folder)), own_model(folder)
    codes = codec.encode(_noise(5 * codec.frame_size + 1, 3), codec.sample_rate)
    with torch.inference_mode():
        batch = codes.T[None]
        own = model.decode(batch[None], [None]) if family == "encodec" else model.decode(audio_codes=batch)
    samples = own.audio_values.reshape(-1)

    assert torch.equal(codec.decode(codes), samples)
    n_decoded = -(-(5 * codec.frame_size + 1) * codec.decoded_sample_rate // codec.sample_rate)
    assert len(codec.decode_aligned(codes, 5 * codec.frame_size + 1)) == min(n_decoded, len(samples))
    assert codec.decoded_sample_rate == (24_000 if family == "neucodec" else codec.sample_rate)


@pytest.mark.parametrize("family", ["encodec", "dac", "mimi", "xcodec", "higgs_audio_v2_tokenizer"])
def test_number_of_codebooks_is_chosen_by_name(tiny_model: Folders, family: str) -> None:
    folder = tiny_model(family)
    codec = codectok.load_codec(f"transformers:{folder}@2")
    clip = _noise(5 * codec.frame_size, 1)

    codes = codec.encode(clip, codec.sample_rate)

    assert codes.shape == (5, 2)
    assert torch.equal(codes, own_codes(own_model(folder), clip)[:, :2])
    assert codec.n_codebooks == len(codec.codebooks) == 2
    assert len(codec.decode(codes)) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_code_vectors_and_features_have_their_shapes(tiny_model: Folders, family: str) -> None:
    codec = load(str(tiny_model(family)))
    samples = torch.from_numpy(np.stack([_noise(4 * codec.frame_size, seed) for seed in range(2)]))
    with torch.inference_mode():
        features = codec.quantizer_input(samples)

    assert codec.codebooks.shape[:2] == (codec.n_codebooks, codec.codebook_size)
    assert len(features) == 2 and not torch.equal(features[0], features[1])


def test_clip_below_shortest_of_model_is_too_short(tiny_model: Folders) -> None:
    codec = load(str(tiny_model("neucodec")))

    with pytest.raises(AudioError, match="320") as raised:
        codec.encode(_noise(319, 0), 16_000)

    assert raised.value.reason == "too_short"


@pytest.mark.parametrize(("family", "seconds"), [("encodec", 300), ("xcodec", 300), ("xcodec2", 60), ("neucodec", 60)])
def test_clip_beyond_limit_is_too_long(tiny_model: Folders, family: str, seconds: int) -> None:
    codec = load(str(tiny_model(family)))
    second = np.zeros(codec.sample_rate, np.float32)

    (error,) = codec.encode_clips([(second for _ in range(seconds + 1))], codec.sample_rate)

    assert isinstance(error, AudioError) and error.reason == "too_long" and str(seconds) in str(error)


def test_description_says_what_computed_the_codes(tiny_model: Folders) -> None:
    import transformers

    described = load(f"{tiny_model('mimi')}@2", batch_seconds=10.0).describe()

    assert (described.codec_name, described.codec_type) == ("mimi@2", "transformers:mimi")
    assert (described.n_codebooks, described.codebook_size, described.frame_size) == (2, 16, 40)
    assert described.transformers == transformers.__version__ and described.weights_sha256
    assert described.revision is None and described.batch_seconds == 10.0


def test_inference_turns_tf32_off_in_all_layers() -> None:
    backends: Any = torch.backends  # its types lack fp32_precision
    settings = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "tf32"
    try:
        with inference(torch.device("cpu"), tf32=False, autocast=False):
            assert [setting.fp32_precision for setting in settings] == ["ieee"] * 3
        assert [setting.fp32_precision for setting in settings] == ["tf32"] * 3
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision
