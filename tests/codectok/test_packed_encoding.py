"""Codes of a clip do not depend on other clips, on its position in a pack, or on how it was cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from _pytest.mark import ParameterSet
from torch import Tensor

from codectok import AudioError, Codec, CodectokError, InputError
from codectok.choices import Precision
from codectok.config import CodecConfig, named_codec_config
from codectok.model.clip_encoder import PackBatching, PackedClipEncoder
from codectok.model.packed_encoder import PackedEncoder
from codectok.model.packing import BLOCK_ROWS, PackGeometry, cut_into_chunks, fill_packs
from tests.helpers.codecs import NANO, VARIANTS, make_codec, noise

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


def lengths(config: CodecConfig, seed: int) -> list[int]:
    """Lengths in samples around every boundary, some random ones, and one longer than the smallest pack."""
    frame, edge = config.frame_size, config.mel.padding
    borders = [1, 2, edge, edge + 1, edge + 2, frame - 1, frame, frame + 1, 5 * frame - 1, 5 * frame, 5 * frame + 1]
    pack = PackGeometry(config, 1).pack_frames * config.mel.hop_length
    generator = np.random.default_rng(seed)
    random = [*generator.integers(1, 20 * frame, 6).tolist(), int(generator.integers(pack, 2 * pack))]
    return [*borders, *random, pack - 1, pack, pack + 1, pack + frame]


def features_of(codec: Codec, clips: list[np.ndarray], pack_frames: int) -> list[Tensor]:
    """Features before the search: floats show differences that codes may hide."""
    geometry = PackGeometry(codec.config, pack_frames)
    log_mel, fused = codec.log_mel.of_windows, codec.kernels == "triton"
    encoder = PackedEncoder(codec.network, log_mel, geometry, codec.device, codec.dtype, fused)
    encoder._encode_frames = torch.clone
    found: list[list[Tensor]] = [[] for _ in clips]
    chunks = ((number, chunk) for number, clip in enumerate(clips) for chunk in cut_into_chunks([clip], geometry))
    batching = PackBatching(geometry, fixed_length=codec.device.type == "cuda")
    for number, _, features in PackedClipEncoder(batching, encoder).encode_chunks(chunks):
        found[number].append(features)
    return [torch.cat(features) for features in found]


def assert_independent(codec: Codec, clips: list[np.ndarray]) -> None:
    """Compare features and codes of clips encoded alone, together, in another order, in blocks and in chunks."""
    order = np.random.default_rng(7).permutation(len(clips)).tolist()
    # On a GPU codes may depend on the pack size; the smallest packs have clips that are cut into chunks.
    sizes = (8192, 1) if codec.device.type == "cpu" else (1,)
    alone = [features_of(codec, [clip], sizes[0])[0] for clip in clips]
    for pack_frames in sizes:
        together = features_of(codec, clips, pack_frames)
        shuffled = features_of(codec, [clips[number] for number in order], pack_frames)
        for number, features in enumerate(alone):
            assert len(features) == codec.config.n_frames(len(clips[number]))
            assert torch.equal(features, together[number]), f"clip {number} with others"
            assert torch.equal(features, shuffled[order.index(number)]), f"clip {number} in another order"
    codecs = [Codec(codec.header, codec.network, str(codec.device), codec.dtype, size) for size in sizes]
    many = codecs[0].encode_batch(clips, 24_000)
    for clip, codes in zip(clips, many, strict=True):
        assert torch.equal(codes, codecs[0].encode(clip, 24_000))
        cuts = np.sort(np.random.default_rng(len(clip)).integers(0, len(clip) + 1, 5))
        streamed = list(codecs[-1].encode_stream(np.split(clip, cuts), 24_000))
        assert torch.equal(codes, torch.cat(streamed))


def devices(dtype: str, variant: str) -> list[ParameterSet]:
    """On a CPU, bfloat16 is tested quickly with two variants only; the passes are the ones of float32."""
    on_cpu = [pytest.mark.slow] if dtype == "bfloat16" and variant not in ("one-codebook", "grouped-residual") else []
    cpu = pytest.param(variant, "cpu", dtype, marks=on_cpu, id=f"{variant}-cpu-{dtype}")
    return [cpu, pytest.param(variant, "cuda", dtype, marks=pytest.mark.gpu, id=f"{variant}-cuda-{dtype}")]


@pytest.mark.parametrize(
    ("variant", "device", "dtype"),
    [case for variant in VARIANTS for dtype in ("float32", "bfloat16") for case in devices(dtype, variant)],
)
def test_codes_do_not_depend_on_other_clips(variant: str, device: str, dtype: Precision) -> None:
    codec = make_codec(VARIANTS[variant], device=device, dtype=dtype)
    assert_independent(codec, [noise(n, seed=n) for n in lengths(codec.config, seed=1)])


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_imported_codec_codes_do_not_depend_on_other_clips(golden: Path, device: str) -> None:
    codec = Codec.from_distilcodec(golden, step=42, device=device)
    audio, _ = soundfile.read(golden / "audio_24k.wav", dtype="float32")
    long = np.tile(audio, 8)
    clips = [long[n % 9999 :][:n] for n in lengths(codec.config, seed=3)]
    assert_independent(codec, clips)


@pytest.mark.parametrize("threads", [1])
def test_codes_do_not_depend_on_other_clips_with_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        codec = make_codec(VARIANTS["folded"])
        assert_independent(codec, [noise(n, seed=n) for n in (1, 600, 40_000, 300_000)])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_packed_codes_equal_unpacked_codes(variant: str) -> None:
    codec = make_codec(VARIANTS[variant])
    config = codec.config
    equal = frames = 0
    for n_samples in lengths(config, seed=5):
        clip = noise(n_samples, seed=n_samples)
        missing = max(0, config.min_samples - n_samples)
        padded = torch.nn.functional.pad(torch.from_numpy(clip), (config.left_pad, missing))
        with torch.inference_mode():
            log_mel = codec.log_mel(padded.unsqueeze(0))
            features = codec.network.quantizer.downsample(codec.network.encoder(log_mel))[0]
            defined = codec.network.encode(log_mel)[0]
        found = features_of(codec, [clip], 8192)[0]
        torch.testing.assert_close(found, features[: len(found)], rtol=1e-5, atol=1e-5)
        equal += int((codec.encode(clip, 24_000) == defined[: len(found)]).all(1).sum())
        frames += len(found)
    assert equal / frames >= 0.999


def test_encoder_receptive_field_is_exact() -> None:
    codec = make_codec(NANO)
    geometry = PackGeometry(codec.config)
    log_mel = torch.from_numpy(noise(1, 200, 80))
    changed = log_mel.clone()
    changed[0, 100] += 100.0
    downsample = codec.network.quantizer.downsample
    before, after = (downsample(codec.network.encoder(x))[0] for x in (log_mel, changed))
    seen = (before != after).any(1).nonzero()
    assert 100 - int(seen.min()) == int(seen.max()) - 100 == geometry.receptive_field
    assert PackGeometry(CodecConfig()).receptive_field == 60


def test_stream_is_encoded_while_it_arrives() -> None:
    codec = make_codec(NANO, pack_frames=1)
    read = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal read
        buffer = np.zeros(5000, np.float32)  # reused for every block, as sound cards do
        for number in range(100):
            buffer[:] = noise(5000, seed=number)
            read += 1
            yield buffer

    whole = np.concatenate([noise(5000, seed=number) for number in range(100)])
    stream = codec.encode_stream(blocks(), 24_000)
    first = next(stream)
    assert 0 < len(first) < BLOCK_ROWS
    assert read < 60
    assert torch.equal(torch.cat([first, *stream]), codec.encode(whole, 24_000))


def test_resampled_stereo_stream_equals_whole_clip() -> None:
    codec = make_codec(NANO)
    stereo = noise(2, 100_000)
    blocks = np.array_split(stereo, 7, axis=1)
    empty = np.zeros((2, 0), np.float32)
    streamed = torch.cat(list(codec.encode_stream([empty, *blocks[:3], empty, *blocks[3:]], 44_100)))
    assert torch.equal(streamed, codec.encode(stereo, 44_100))


def test_clip_errors_are_returned_in_order() -> None:
    codec = make_codec(NANO, pack_frames=1)

    def broken() -> Iterator[np.ndarray]:
        yield noise(400_000)
        raise AudioError("It breaks off.", "decode_error")

    good = [noise(n, seed=n) for n in (30_000, 500, 300_000)]
    nan = np.full(1000, np.nan, np.float32)
    clips = [[nan], [good[0]], broken(), [good[1]], [], [nan], [good[2]], [nan]]
    found = list(codec.encode_clips(clips, 24_000))
    assert [type(result).__name__ for result in found] == [
        "AudioError", "Tensor", "AudioError", "Tensor", "AudioError", "AudioError", "Tensor", "AudioError"
    ]  # fmt: skip
    assert [str(found[number]) for number in (2, 4)] == ["It breaks off.", "The waveform has no samples."]
    codes = [result for result in found if isinstance(result, Tensor)]
    for result, clip in zip(codes, good, strict=True):
        assert torch.equal(result, codec.encode(clip, 24_000))
    with pytest.raises(AudioError, match="the first at 1400"):
        list(codec.encode_stream([noise(1400), nan], 24_000))


@pytest.mark.parametrize("blocks", [noise(2, 9000), torch.zeros(9000), [0.0, 0.1], [noise(1, 2, 0)]])
def test_invalid_blocks_are_refused(blocks: object) -> None:
    codec = make_codec(NANO)
    with pytest.raises(InputError, match=r"sequence of arrays|\[channels, n\]"):
        list(codec.encode_stream(blocks, 24_000))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"sequence of arrays|\[channels, n\]"):
        list(codec.encode_clips([blocks], 24_000))  # type: ignore[list-item]


def test_batch_error_names_clip() -> None:
    with pytest.raises(AudioError, match="Clip 1: The waveform has no samples"):
        make_codec(NANO).encode_batch([noise(500), noise(0)], 24_000)


def test_inherited_precision_settings_stay_inherited() -> None:
    matmul = torch.backends.cuda.matmul
    backends: Any = torch.backends  # its types lack fp32_precision
    before = backends.fp32_precision
    backends.fp32_precision = "tf32"
    try:
        make_codec(NANO).encode(noise(500), 24_000)
        assert matmul.fp32_precision == "tf32"
        backends.fp32_precision = "ieee"
        assert matmul.fp32_precision == "ieee"
        assert matmul.allow_bf16_reduced_precision_reduction
    finally:
        backends.fp32_precision = before


def test_mel_and_search_are_float32_in_every_precision() -> None:
    codec = make_codec(NANO)
    found: dict[str, str] = {}

    def noting(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*inputs: Tensor) -> Tensor:
            found[name] = torch.backends.cuda.matmul.fp32_precision
            return function(*inputs)

        return call

    log_mel = noting("mel", codec.log_mel.of_windows)
    encoder = PackedEncoder(codec.network, log_mel, codec.geometry, codec.device, "tf32")
    encoder._encode_frames = noting("search", encoder._encode_frames)
    block: Any = next(iter(codec.network.encoder.stages[0].children()))
    block.valid = noting("block", block.valid)
    list(PackedClipEncoder(codec.batching(on_gpu=False), encoder).encode_stream([noise(30_000)]))
    assert found == {"mel": "ieee", "block": "tf32", "search": "ieee"}


def test_process_precision_settings_do_not_change_codes() -> None:
    clip = noise(100_000)
    codec, again = make_codec(VARIANTS["folded"]), make_codec(VARIANTS["folded"])
    expected = codec.encode(clip, 24_000)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(again.encode(clip, 24_000), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_bfloat16_changes_few_codes() -> None:
    clip = noise(200_000)
    exact, half = make_codec(VARIANTS["folded"]), make_codec(VARIANTS["folded"], dtype="bfloat16")
    features, half_features = (features_of(codec, [clip], 8192)[0] for codec in (exact, half))
    assert 1e-5 < float((features - half_features).abs().mean() / features.std()) < 0.02
    codes = exact.encode(clip, 24_000)
    assert len(codes.unique()) > 100
    assert float((half.encode(clip, 24_000) == codes).float().mean()) > 0.9


def test_position_dependent_products_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = make_codec(NANO)
    monkeypatch.setattr(
        torch.nn.Linear, "forward", lambda self, x: x @ self.weight.T + torch.arange(len(x)).unsqueeze(1)
    )
    with pytest.raises(CodectokError, match="depend on their position"):
        codec.encode(noise(1000), 24_000)


def test_codec_describe() -> None:
    described = make_codec(NANO, dtype="bfloat16", pack_frames=1000).describe()
    assert (described.dtype, described.device, described.pack_frames) == ("bfloat16", "cpu", 1024)
    assert described.codec_name == "nano"
    assert described.codec_fingerprint == make_codec(NANO).fingerprint


def test_packs_of_one_length_are_nearly_full() -> None:
    """Packs that are filled in the order of the clips are 92 % full."""
    geometry = PackGeometry(named_codec_config("distilcodec-v1"))
    lengths = np.random.default_rng(0).uniform(2.0, 10.0, 1000)
    chunks = (
        (number, chunk)
        for number, seconds in enumerate(lengths)
        for chunk in cut_into_chunks([np.zeros(int(seconds * 24_000), np.float32)], geometry)
    )
    packs = list(fill_packs(chunks, geometry, fixed_length=True))
    used = sum(placement.chunk.n_frames for pack in packs for placement in pack.placements)
    assert used / (len(packs) * geometry.pack_frames) > 0.97
    found = [placement.tag for pack in packs for placement in pack.placements]
    assert sorted(found) == list(range(len(lengths)))


def test_codes_of_packs_filled_out_of_order_are_those_of_each_clip() -> None:
    codec = make_codec(VARIANTS["folded"])
    generator = np.random.default_rng(1)
    size = codec.geometry.pack_frames * codec.geometry.hop
    clips = [
        noise(int(length)) for length in [*generator.integers(1, size, 7), 2 * size, *generator.integers(1, size, 3)]
    ]
    batching = PackBatching(codec.geometry, fixed_length=True)
    found = list(batching.clip_encoder(codec.packed_encoder).encode_clips((n, [clip]) for n, clip in enumerate(clips)))
    assert [number for number, _ in found] == list(range(len(clips)))
    for clip, (_, codes) in zip(clips, found, strict=True):
        assert isinstance(codes, Tensor)
        assert torch.equal(codes, codec.encode(clip, 24_000))
