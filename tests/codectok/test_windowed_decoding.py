"""Decoding in windows equals decoding the whole clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from codectok import Codec
from codectok.config import CodecConfig
from codectok.model import windowed_decoder
from codectok.model.windowed_decoder import decoder_receptive_field, windows
from tests.helpers.codecs import NANO, VARIANTS, make_codec


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windowed_decoder, "WINDOW_FRAMES", 40)


def random_codes(codec: Codec, n_frames: int) -> torch.Tensor:
    return torch.randint(codec.codebook_size, (n_frames, codec.n_codebooks))


def assert_near(found: torch.Tensor, expected: torch.Tensor, codec: Codec) -> None:
    """Compare samples of full scale on a CPU; on a GPU relative to the signal.

    There libraries choose among algorithms by the length of the input, some of which transform it.
    """
    if codec.device.type == "cpu":
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    else:
        assert float((found - expected).norm()) < 1e-4 * float(expected.norm())


def assert_decodes_as_a_whole(codec: Codec) -> None:
    size = 40 + 2 * decoder_receptive_field(codec.config)
    clips = [random_codes(codec, n) for n in (1, 2, size - 1, size, size + 1, size + 40, 3 * size + 7, size, 2)]
    for codes, found in zip(clips, codec.decode_batch(clips), strict=True):
        with torch.inference_mode():
            whole = codec.network.decode(codes.unsqueeze(0).to(codec.device))[0].cpu()
        assert_near(found, whole, codec)
        assert_near(codec.decode(codes), found, codec)
        streamed = torch.cat(list(codec.decode_stream(codes)))
        assert_near(streamed, found[codec.config.left_pad :], codec)
        n_samples = len(codes) * codec.frame_size // 2
        cut = torch.cat(list(codec.decode_stream(codes, n_samples)))
        assert torch.equal(cut, streamed[:n_samples])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_windowed_decoding_equals_whole_clip(variant: str, device: str) -> None:
    torch.manual_seed(0)
    codec = make_codec(VARIANTS[variant], device=device)
    for tensor in codec.network.decoder.parameters():
        tensor.mul_(2)  # initial kernels attenuate changes too much
    assert_decodes_as_a_whole(codec)


def test_windowed_decoding_of_imported_codec(golden: Path) -> None:
    torch.manual_seed(0)
    assert_decodes_as_a_whole(Codec.from_distilcodec(golden, step=42, device="cpu"))


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("n_frames", [*range(1, 30), 100, 101, 555])
def test_windows_keep_every_frame_once(n_frames: int, equal: bool) -> None:
    found = windows(n_frames, size=20, receptive_field=6, equal=equal)
    kept = [frame for window in found for frame in range(window.keep_start, window.keep_stop)]
    assert kept == list(range(n_frames))
    for window in found:
        assert window.stop - window.start == min(20, n_frames) or (window.stop == n_frames and not equal)
        assert window.start == 0 or window.keep_start - window.start >= 6
        assert window.stop == n_frames or window.stop - window.keep_stop >= 6


@pytest.mark.parametrize("config", [NANO, VARIANTS["two-time-factors"], VARIANTS["inverse-stft"]])
def test_decoder_receptive_field_is_tight(config: CodecConfig) -> None:
    codec = make_codec(config)
    for tensor in codec.network.decoder.parameters():
        tensor.div_(2)  # keeps tanh out of saturation, where changes would vanish
    codes = torch.zeros(1, 201, codec.n_codebooks, dtype=torch.long)
    changed = codes.clone()
    changed[0, 100] = 1
    network = codec.network.double()
    before, after = (network.decode(c)[0] for c in (codes, changed))
    seen = (before != after).nonzero()
    first, last = int(seen.min()) // codec.frame_size, int(seen.max()) // codec.frame_size
    side = decoder_receptive_field(config)
    assert side - 1 <= max(100 - first, last - 100) <= side


def test_long_clip_is_decoded_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = make_codec(NANO)
    longest = 0
    decode = codec.network.decode

    def watched(codes: torch.Tensor) -> torch.Tensor:
        nonlocal longest
        longest = max(longest, codes.numel())
        return decode(codes)

    monkeypatch.setattr(codec.network, "decode", watched)
    n_samples = sum(len(block) for block in codec.decode_stream(np.zeros((5000, 1), np.uint16)))
    assert n_samples == 5000 * 256
    assert longest == 40 + 2 * decoder_receptive_field(NANO)
