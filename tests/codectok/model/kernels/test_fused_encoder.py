"""Kernels of the encoder, interpreted on a CPU or compiled on a GPU, equal the operations of torch."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from codectok import Codec
from codectok.device import inference
from codectok.errors import CodectokError
from codectok.model.packing import PackGeometry, cut_into_chunks, fill_packs
from codectok.model.plain_features import PlainFeatures
from tests.helpers.codecs import VARIANTS, make_codec, noise

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# On a machine with a GPU kernels are compiled for it.
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []
# The scale of new blocks is 1e-6, which would hide their errors.
SCALE = 0.3


@dataclass
class Packed:
    """A codec, and a pack of three clips.

    Attributes:
        inputs: samples and gaps.
        kept: bool [frames], True for frames of clips.
    """

    codec: Codec
    geometry: PackGeometry
    inputs: list[Tensor]
    kept: Tensor


def packed(variant: str, order: tuple[int, ...] = (900, 3000, 9000)) -> Packed:
    codec = make_codec(VARIANTS[variant], device=DEVICE, dtype="bfloat16", kernels="torch")
    for name, parameter in codec.network.named_parameters():
        if name.endswith("gamma"):
            parameter.fill_(SCALE)
    geometry = PackGeometry(codec.config, 1)
    chunks = [(n, chunk) for n in order for chunk in cut_into_chunks([noise(n, seed=n)], geometry)]
    pack = next(fill_packs(chunks, geometry, fixed_length=True))
    inputs = [torch.from_numpy(array).to(codec.device) for array in (pack.samples, *pack.gaps)]
    return Packed(codec, geometry, inputs, ~inputs[-1])


def plain_features(made: Packed, dtype: str) -> Tensor:
    log_mel = made.codec.log_mel.of_windows
    features = PlainFeatures(made.codec.network, log_mel, made.geometry, dtype, 512)  # type: ignore[arg-type]
    with inference(made.codec.device, tf32=False, autocast=False):
        return features(*made.inputs)


def fused_features(made: Packed) -> Tensor:
    from codectok.model.fused_features import FusedFeatures

    features = FusedFeatures(made.codec.network, made.codec.log_mel.of_windows, made.geometry)
    with inference(made.codec.device, tf32=False, autocast=False):
        return features(*made.inputs)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    "variant",
    ["folded", "two-time-factors", *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS)],
)
def test_fused_features_are_as_near_to_float32_as_plain_ones(variant: str) -> None:
    made = packed(variant)
    exact, plain, fused = plain_features(made, "float32"), plain_features(made, "bfloat16"), fused_features(made)
    assert torch.isfinite(fused).all()
    assert 0 < error(fused[made.kept], exact[made.kept]) < 2 * error(plain[made.kept], exact[made.kept]) < 0.02


@pytest.mark.parametrize("part", ["features", pytest.param("codes", marks=pytest.mark.slow)])
def test_wrong_kernels_are_found_before_the_first_pack(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    from codectok.model.fused_features import FusedFeatures
    from codectok.model.kernels.nearest import FusedSearch
    from codectok.model.packed_encoder import PackedEncoder

    if part == "features":
        right = FusedFeatures.__call__
        monkeypatch.setattr(FusedFeatures, "__call__", lambda self, *inputs: 1.1 * right(self, *inputs))
    else:
        search = FusedSearch.__call__
        monkeypatch.setattr(FusedSearch, "__call__", lambda self, *inputs: search(self, *inputs).flip(0))
    made = packed("folded")
    network, log_mel = made.codec.network, made.codec.log_mel.of_windows
    encoder = PackedEncoder(network, log_mel, made.geometry, made.codec.device, "bfloat16", fused=True)
    with pytest.raises(CodectokError, match=r"differ by .* of the codes; use torch's"):
        encoder.start(*(each.cpu().numpy() for each in made.inputs))


def test_fused_features_do_not_depend_on_place() -> None:
    made, moved = packed("folded"), packed("folded", (9000, 900, 3000))
    features, other = fused_features(made), fused_features(moved)
    (start, _, _), (_, moved_start, _) = starts(made, (900, 3000, 9000)), starts(moved, (9000, 900, 3000))
    n_frames = made.codec.config.n_frames(900)
    assert n_frames > 1
    assert torch.equal(features[start : start + n_frames], other[moved_start : moved_start + n_frames])


def starts(made: Packed, order: tuple[int, ...]) -> list[int]:
    geometry = made.geometry
    chunks = [(n, chunk) for n in order for chunk in cut_into_chunks([noise(n, seed=n)], geometry)]
    return [placement.position for placement in next(fill_packs(chunks, geometry, fixed_length=True)).placements]
