"""Decoding in packs equals decoding each clip alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from codectok import Codec
from codectok.config import CodecConfig, DecoderConfig
from codectok.errors import CodectokError
from codectok.model.hifigan import HiFiGANDecoder
from codectok.model.windowed_decoder import WindowedDecoder
from tests.helpers.codecs import NANO, VARIANTS, make_codec
from tests.helpers.triton_interpreter import interpret_bfloat16_products

pytest.importorskip("triton")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# On a machine with a GPU kernels are compiled for it.
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []
# Narrow, since the interpreter is slow; with two residual blocks in parallel.
NARROW = NANO.model_copy(
    update={
        "mel": NANO.mel.model_copy(update={"hop_length": 64}),
        "decoder": NANO.decoder.model_copy(
            update={
                "initial_channels": 64,
                "upsample_rates": (8, 8),
                "upsample_kernel_sizes": (16, 20),
                "resblock_kernel_sizes": (3, 5),
                "resblock_dilations": ((1, 2), (3,)),
            }
        ),
    }
)
WITH_TIME_FACTORS = NARROW.model_copy(
    update={"quantizer": NARROW.quantizer.model_copy(update={"time_factors": (1, 2)})}
)


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE.type == "cpu":
        interpret_bfloat16_products(monkeypatch)


def codec_of(config: CodecConfig) -> Codec:
    torch.manual_seed(0)
    codec = make_codec(config, device=str(DEVICE), kernels="torch")
    for parameter in codec.network.decoder.parameters():
        parameter.mul_(2)  # initial kernels attenuate changes too much
    return codec


def clips_of(codec: Codec, lengths: tuple[int, ...]) -> list[Tensor]:
    return [torch.randint(codec.codebook_size, (n, codec.n_codebooks)) for n in lengths]


@pytest.mark.parametrize(
    "config", [NARROW, WITH_TIME_FACTORS, pytest.param(VARIANTS["folded"], marks=pytest.mark.slow)]
)
def test_packed_decoding_equals_decoding_alone(config: CodecConfig) -> None:
    from codectok.model.packed_decoder import PackedDecoder

    codec = codec_of(config)
    decoder = PackedDecoder(codec.network, DEVICE, pack_frames=1)
    clips = clips_of(codec, (1, 7, decoder._size + 3))
    found = decoder.batch(clips)
    # Of equal bits, for any company and cut of a clip.
    assert torch.equal(decoder.batch([clips[1]])[0], found[1])
    assert torch.equal(torch.cat(list(decoder.stream(clips[2]))), found[2])
    exact = WindowedDecoder(codec.network, DEVICE, "float32").batch(clips)
    half = WindowedDecoder(codec.network, DEVICE, "bfloat16").batch(clips)
    for samples, expected, rounded in zip(found, exact, half, strict=True):
        assert samples.shape == expected.shape
        # The interpreter truncates where a GPU rounds, twice the error.
        assert 0 < float((samples - expected).norm()) < 3 * float((rounded - expected).norm())
        assert float((rounded - expected).norm() / expected.norm()) < 0.05


@pytest.mark.parametrize("fault", [0.3, float("nan")])
def test_wrong_kernels_are_found_before_the_first_pack(monkeypatch: pytest.MonkeyPatch, fault: float) -> None:
    from codectok.model.kernels.convolution import LastConvolution
    from codectok.model.packed_decoder import PackedDecoder

    right = LastConvolution.__call__
    monkeypatch.setattr(LastConvolution, "__call__", lambda self, rows: (1 + fault) * right(self, rows))
    codec = codec_of(NARROW)
    decoder = PackedDecoder(codec.network, DEVICE, pack_frames=1)
    with pytest.raises(CodectokError, match=r"differ by (3\d.\d|nan)%.*use torch's"):
        decoder.batch(clips_of(codec, (7,)))


@pytest.mark.parametrize(("kernel_sizes", "rates"), [((64, 24), (8, 8)), ((24, 64), (8, 8)), ((4, 32), (2, 32))])
def test_wide_transposed_convolutions_stay_within_their_rows(
    kernel_sizes: tuple[int, int], rates: tuple[int, int]
) -> None:
    from codectok.model.hifigan_kernels import FusedHiFiGAN

    config = DecoderConfig(
        initial_channels=64,
        upsample_rates=rates,
        upsample_kernel_sizes=kernel_sizes,
        pre_kernel_size=3,
        post_kernel_size=3,
        resblock_kernel_sizes=(3,),
        resblock_dilations=((1,),),
    )
    decoder = HiFiGANDecoder(config, 32).requires_grad_(False).to(DEVICE)
    fused = FusedHiFiGAN(decoder)
    n_frames = 3
    features = torch.randn(2 * n_frames + fused.reach, 32, device=DEVICE)
    gap = torch.zeros(len(features), dtype=torch.bool, device=DEVICE)
    gap[n_frames:-n_frames] = True
    features[gap] = 0
    with torch.inference_mode():
        found = fused(features, gap).view(len(features), -1)
        for part in (slice(0, n_frames), slice(len(features) - n_frames, None)):
            expected = decoder(features[part].unsqueeze(0))[0]
            assert float((found[part].flatten() - expected).norm() / expected.norm()) < 0.05


@pytest.mark.gpu
def test_codec_decodes_batches_like_clips_alone_on_gpu() -> None:
    codec = make_codec(VARIANTS["folded"], device="cuda", dtype="bfloat16")
    assert codec.kernels == "triton"
    clips = clips_of(codec, (1, 200, 5000, 30))
    for codes, samples in zip(clips, codec.decode_batch(clips), strict=True):
        assert torch.equal(codec.decode(codes), samples)


@pytest.mark.parametrize("variant", ["inverse-stft"])
def test_decoders_without_kernels_are_told_apart(variant: str) -> None:
    from codectok.model.hifigan_kernels import supports

    assert not supports(codec_of(VARIANTS[variant]).network.decoder)
    assert supports(codec_of(NARROW).network.decoder)
