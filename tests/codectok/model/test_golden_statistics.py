"""A training step updates codebooks like the reference (values of the specification, section 8)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from codectok.checkpoints.distilcodec import _source_of
from codectok.config import VectorQuantizerConfig
from codectok.model.quantization.build import build_quantizer
from codectok.model.quantization.temporal import TemporalQuantizer
from tests.helpers.codebook_learning import first_codebook, first_group

DIM = 40
CODEBOOK = "grvq.rvqs.0.layers.0._codebook"


@dataclass(frozen=True)
class Golden:
    """Expected values of one quantizer: codes of its first codebook [B, T'], and that codebook after one step."""

    config: VectorQuantizerConfig
    frames: int
    codes: str
    commitment: float
    embedding_mean: float
    embedding_absmean: float
    embedding_ends: list[float]
    counts: list[float]


STUDENT = Golden(
    VectorQuantizerConfig(codebook_size=32, codebook_dim=48),
    frames=30,
    codes="19 13 12 14 16 10 6 28 16 27 3 22 13 15 20 16 10 9 5 16 30 29 22 13 18 23 19 13 9 8 "
    "29 22 13 18 23 19 13 12 11 16 7 6 25 13 21 26 19 13 12 14 16 10 6 2 16 1 3 19 13 15",
    commitment=46.6526794,
    embedding_mean=1.1323670e-03,
    embedding_absmean=1.4174981e00,
    embedding_ends=[-0.2939709, -0.5059059, -0.4799053, -0.2281978, 0.0151852, -0.2962713],
    counts=[0.76033, 0.96636, 0.98821, 1.21561, 0.83566, 1.03895, 1.42391, 0.99763],
)
TEACHER = Golden(
    VectorQuantizerConfig(n_groups=2, n_residuals=3, codebook_size=16, codebook_dim=12, time_factors=(2,)),
    frames=29,
    codes="0 13 0 4 14 1 14 1 2 15 2 0 13 0 1 14 1 8 15 2 6 13 0 13 0 4 14 1",
    commitment=75.5517273,
    embedding_mean=-2.3123683e-02,
    embedding_absmean=1.8402948e00,
    embedding_ends=[-2.907089, 6.889554, 4.5163131, -5.8933058, 1.2153841, -2.5502346],
    counts=[1.96033, 1.76636, 1.38821, 0.81561, 1.23566, 0.83895, 1.02391, 0.79763],
)


def filled(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return the values of the reference's tensor `key`."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    values = (0.05 * torch.sin(0.7 * index + sum(key.encode()) % 101)).float()
    if key.endswith(("norm.weight", "gamma", "cluster_size")):
        values += 1
    if key.endswith(("project_in.weight", ".0.0.weight")):
        values *= 20
    if key.endswith(("embed", "embed_avg")):
        values *= 10
    return values.view(shape)


def fixture_quantizer(config: VectorQuantizerConfig) -> TemporalQuantizer:
    quantizer = build_quantizer(config, DIM)
    state = {}
    for key, tensor in quantizer.state_dict().items():
        source = _source_of(f"quantizer.{key}")
        state[key] = source.to_ours(filled(source.key, source.reference_shape(tuple(tensor.shape))))
    quantizer.load_state_dict(state)
    return quantizer


@pytest.mark.parametrize("golden", [STUDENT, TEACHER], ids=["student", "teacher"])
def test_codebook_update_equals_reference(golden: Golden) -> None:
    quantizer = fixture_quantizer(golden.config)
    quantizer.prepare_for_training()
    features = torch.sin(1.7 * torch.arange(2 * DIM * 30, dtype=torch.float64)).float().view(2, DIM, 30).mT
    features = features[:, : golden.frames]
    with torch.no_grad():
        output = quantizer(features)
        downsampled = quantizer.downsample(features).flatten(0, 1)
    assert float(output.commitment_loss) == pytest.approx(golden.commitment, rel=1e-5)
    group, book = first_group(quantizer), first_codebook(quantizer)
    expected = torch.tensor([int(code) for code in golden.codes.split()])
    distances = torch.cdist(group.project_in(downsampled.chunk(golden.config.n_groups, dim=1)[0]), book.embedding)
    best = distances.gather(1, output.codes[..., :1].flatten(0, 1))
    # One token of each quantizer is equally near to a second code, to seven digits.
    torch.testing.assert_close(distances.gather(1, expected.unsqueeze(1)), best, rtol=1e-6, atol=0)
    assert int((output.codes[..., 0].flatten() != expected).sum()) <= 1
    # The reference stores sums that do not match its codes; ours are computed from codes and counts.
    book.ema_count.copy_(filled(f"{CODEBOOK}.cluster_size", tuple(book.ema_count.shape)))
    book.embedding.copy_(filled(f"{CODEBOOK}.embed_avg", tuple(book.embedding.shape)) / book.ema_count.unsqueeze(1))
    codes = output.codes.flatten(0, 1)
    codes[:, 0] = expected
    with torch.no_grad():
        quantizer.inner.learn(downsampled, codes, one_hot(codes, golden.config.codebook_size).sum(0))
    assert book.ema_count[:8].tolist() == pytest.approx(golden.counts, abs=1e-5)
    ends = torch.cat([book.embedding.flatten()[:4], book.embedding.flatten()[-2:]])
    assert ends.tolist() == pytest.approx(golden.embedding_ends, rel=1e-4)
    assert float(book.embedding.mean()) == pytest.approx(golden.embedding_mean, rel=1e-4)
    assert float(book.embedding.abs().mean()) == pytest.approx(golden.embedding_absmean, rel=1e-5)
