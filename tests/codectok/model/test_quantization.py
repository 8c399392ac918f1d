from __future__ import annotations

import pytest
import torch

from codectok.config import FiniteScalarQuantizerConfig, VectorQuantizerConfig
from codectok.model.quantization import build_quantizer
from codectok.model.quantization.codebook import EXPIRY_SHARE, Codebook
from codectok.model.quantization.vector import ResidualVectorQuantizer


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def codebook(size: int = 50, dim: int = 6, decay: float = 0.8) -> Codebook:
    made = Codebook(size, dim, decay)
    made.embedding.normal_()
    made.prepare_for_training()
    return made


def test_search_finds_the_nearest_code() -> None:
    book, vectors = codebook(), torch.randn(3000, 6)
    assert torch.equal(book.search(vectors), torch.cdist(vectors, book.embedding).argmin(1))


def test_ties_go_to_the_lowest_index() -> None:
    book = codebook()
    book.embedding[[3, 7, 20]] = 0.0
    book.embedding[30] = book.embedding[10]
    assert book.search(torch.zeros(1, 6)).item() == 3
    assert book.search(book.embedding[30:31]).item() == 10


def test_an_update_is_the_exponential_moving_average() -> None:
    book = codebook(size=4, dim=2, decay=0.8)
    count, total = book.ema_count.clone(), book.ema_sum.clone()
    vectors, codes = torch.randn(9, 2), torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 3])
    book.update(vectors, codes)
    one_hot = torch.nn.functional.one_hot(codes, 4).float()
    count = 0.8 * count + 0.2 * one_hot.sum(0)
    total = 0.8 * total + 0.2 * one_hot.T @ vectors
    smoothed = (count + 1e-5) / (count.sum() + 4e-5) * count.sum()
    torch.testing.assert_close(book.ema_count, count)
    torch.testing.assert_close(book.embedding, total / smoothed.unsqueeze(1))


def test_an_unused_code_comes_back_as_a_vector_of_the_batch() -> None:
    book = codebook(size=8)
    vectors = torch.randn(64, 6)
    expired = torch.tensor(0)
    for _ in range(40):
        expired = expired + book.update(vectors, torch.zeros(64, dtype=torch.int64))
    assert expired > 0
    # Replaced codes are vectors of the batch when they come back, then fade no further than the threshold.
    assert book.ema_count.min() >= EXPIRY_SHARE * book.ema_count.mean() * 0.5
    book.ema_count[5], book.ema_sum[5] = 0.0, 0.0
    book.update(vectors, torch.zeros(64, dtype=torch.int64))
    distance = torch.cdist(book.embedding[5:6], vectors).min()
    assert distance < 1e-3


def test_codebooks_start_on_the_data() -> None:
    book, vectors = codebook(), torch.randn(20, 6)
    book.initialize(vectors)
    assert {tuple(row) for row in book.embedding.tolist()} == {tuple(row) for row in vectors.tolist()}


@pytest.mark.parametrize("n_residuals", [1, 4])
def test_the_gradient_passes_once_however_many_layers(n_residuals: int) -> None:
    config = VectorQuantizerConfig(n_residuals=n_residuals, codebook_size=16, codebook_dim=8)
    quantizer = ResidualVectorQuantizer(config, 8).eval()
    features = torch.randn(2, 5, 8, requires_grad=True)
    quantizer(features).features.sum().backward()
    torch.testing.assert_close(features.grad, torch.ones_like(features))


@pytest.mark.parametrize(
    "config",
    [
        VectorQuantizerConfig(n_groups=2, n_residuals=3, codebook_size=16, codebook_dim=5, time_factors=(2, 2)),
        VectorQuantizerConfig(codebook_size=32, codebook_dim=12, time_factors=()),
        FiniteScalarQuantizerConfig(levels=(7, 4, 3), time_factors=(2,)),
    ],
    ids=["grouped-residual", "plain", "fsq"],
)
def test_training_and_inference_agree(config: VectorQuantizerConfig | FiniteScalarQuantizerConfig) -> None:
    quantizer = build_quantizer(config, 12).eval()
    features = torch.randn(2, 12, 12)
    output = quantizer(features)
    assert torch.equal(quantizer.encode(features), output.codes)
    torch.testing.assert_close(quantizer.decode(output.codes), output.features)
    assert output.codes.shape[-1] == config.n_codebooks
    assert output.features.shape == features.shape


def test_every_finite_scalar_code_is_its_own_nearest() -> None:
    config = FiniteScalarQuantizerConfig(levels=(8, 5, 4, 3), time_factors=())
    quantizer = build_quantizer(config, 4).inner
    vectors = quantizer.codebooks[0]
    assert vectors.shape == (config.codebook_size, 4)
    assert len(torch.unique(vectors, dim=0)) == config.codebook_size
    assert -1 <= float(vectors.min()) <= float(vectors.max()) <= 1
    values = vectors * (quantizer.levels // 2)  # what rounding gives, inside every channel's bounds
    codes = (quantizer._digits(values) * quantizer.basis).sum(-1)
    assert torch.equal(codes, torch.arange(config.codebook_size))


def test_all_finite_scalar_codes_can_be_reached_and_no_others() -> None:
    config = FiniteScalarQuantizerConfig(levels=(4, 3), time_factors=())
    quantizer = build_quantizer(config, 2).inner
    torch.nn.init.eye_(quantizer.project_in.weight)
    codes = quantizer.encode(torch.randn(1, 5000, 2) * 3).flatten()
    assert sorted(codes.unique().tolist()) == list(range(12))
