from __future__ import annotations

import pytest
import torch

from codectok.config import (
    FiniteScalarQuantizerConfig,
    QuantizerConfig,
    SimVectorQuantizerConfig,
    VectorQuantizerConfig,
)
from codectok.model.quantization.build import build_quantizer
from codectok.model.quantization.codebook import EMACodebook
from codectok.model.quantization.fsq import FiniteScalarQuantizer
from codectok.model.quantization.grvq import ResidualVectorQuantizer
from codectok.model.quantization.k_means import k_means


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def codebook(size: int = 50, dim: int = 6, decay: float = 0.8) -> EMACodebook:
    made = EMACodebook(size, dim, decay)
    made.embedding.normal_()
    made.prepare_for_training()
    return made


def test_codebook_search_finds_nearest_code() -> None:
    book, vectors = codebook(), torch.randn(3000, 6)
    assert torch.equal(book.search(vectors), torch.cdist(vectors, book.embedding).argmin(1))


def test_codebook_ties_go_to_lowest_index() -> None:
    book = codebook()
    book.embedding[[3, 7, 20]] = 0.0
    book.embedding[30] = book.embedding[10]
    assert book.search(torch.zeros(1, 6)).item() == 3
    assert book.search(book.embedding[30:31]).item() == 10


@pytest.mark.parametrize("summed", [False, True], ids=["tokens", "sums"])
def test_ema_code_is_quotient_of_moving_averages(summed: bool) -> None:
    book = codebook(size=5, dim=2, decay=0.8)
    untouched = book.embedding[4].clone()
    average, count = book.embedding.clone(), torch.ones(5)
    for _ in range(3):
        vectors, codes = torch.randn(9, 2), torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 3])
        one_hot = torch.nn.functional.one_hot(codes, 5).float()
        if summed:
            book.update(torch.arange(5), one_hot.sum(0), one_hot.T @ vectors)
        else:
            book.update(codes, torch.ones(9), vectors)
        count = 0.8 * count + 0.2 * one_hot.sum(0)
        average = 0.8 * average + 0.2 * one_hot.T @ vectors
    torch.testing.assert_close(book.ema_count, count)
    torch.testing.assert_close(book.embedding, average / count.unsqueeze(1))
    assert torch.equal(book.embedding[4], untouched)


def test_unused_code_stays_and_can_still_learn() -> None:
    book = codebook(size=3)
    before, vector = book.embedding.clone(), torch.randn(1, 6)
    for _ in range(1000):  # until the counts of unused codes vanish
        book.update(torch.tensor([0]), torch.ones(1), vector)
    assert torch.equal(book.embedding[1:], before[1:])
    book.update(torch.arange(3), torch.tensor([1.0, 1.0, 0.0]), vector.repeat(3, 1) * torch.tensor([[1.0], [1], [0]]))
    torch.testing.assert_close(book.embedding[1:2], vector)
    assert torch.equal(book.embedding[2], before[2])


def test_replaced_code_stays_replaced() -> None:
    book = codebook(size=8)
    kept, vectors = book.embedding[0].clone(), torch.randn(64, 6)
    for _ in range(40):
        book.update(torch.zeros(64, dtype=torch.int64), torch.ones(64), kept.repeat(64, 1))
    replaced = book.replace(torch.arange(8) > 0, vectors[:5])
    assert replaced.tolist() == [False, *[True] * 5, False, False]  # one for each vector
    assert torch.equal(book.embedding[1:6], vectors[:5])
    # With the old count of almost zero, the next update would move the code away.
    book.update(torch.tensor([3]), torch.ones(1), vectors[2:3])
    torch.testing.assert_close(book.embedding[1:6], vectors[:5])
    torch.testing.assert_close(book.embedding[0], kept)


@pytest.mark.parametrize("n_vectors", [20, 50, 51])
def test_codebook_initializes_on_few_vectors(n_vectors: int) -> None:
    book, vectors = codebook(), torch.randn(n_vectors, 6)
    book.initialize(vectors, torch.Generator().manual_seed(0))
    assert float(torch.cdist(vectors, book.embedding).amin(1).median()) < 1e-5
    assert float(torch.cdist(book.embedding, vectors).amin(1).max()) < 2.0


def test_k_means_fits_data_and_depends_on_seed() -> None:
    vectors = torch.randn(40, 8).repeat_interleave(50, 0) * 3 + torch.randn(2000, 8)
    means, again, others = (k_means(vectors, 64, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(means, again)
    assert not torch.equal(means, others)

    def error(table: torch.Tensor) -> float:
        return float(torch.cdist(vectors, table).amin(1).square().mean())

    assert error(means) < 0.7 * error(vectors[torch.randperm(2000)[:64]])


@pytest.mark.parametrize("n_residuals", [1, 4])
def test_straight_through_gradient_passes_once(n_residuals: int) -> None:
    config = VectorQuantizerConfig(n_residuals=n_residuals, codebook_size=16, codebook_dim=8)
    quantizer = ResidualVectorQuantizer(config, 12).eval()
    identity = torch.eye(8, 12)
    assert isinstance(quantizer.project_in, torch.nn.Linear)
    assert isinstance(quantizer.project_out, torch.nn.Linear)
    quantizer.project_in.weight.data.copy_(identity)
    quantizer.project_out.weight.data.copy_(identity.T)
    features = torch.randn(2, 5, 12, requires_grad=True)
    quantizer(features).features.sum().backward()
    torch.testing.assert_close(features.grad, identity.sum(0).expand(2, 5, 12))


@pytest.mark.parametrize(
    "config",
    [
        VectorQuantizerConfig(n_groups=2, n_residuals=3, codebook_size=16, codebook_dim=5, time_factors=(2, 2)),
        VectorQuantizerConfig(codebook_size=32, codebook_dim=12, time_factors=()),
        SimVectorQuantizerConfig(codebook_size=32, codebook_dim=7, time_factors=(2,)),
        FiniteScalarQuantizerConfig(levels=(7, 4, 3), time_factors=(2,)),
    ],
    ids=["grouped-residual", "plain", "simvq", "fsq"],
)
def test_quantizer_training_and_inference_agree(config: QuantizerConfig) -> None:
    quantizer = build_quantizer(config, 12).eval()
    features = torch.randn(2, 12, 12)
    output = quantizer(features)
    assert torch.equal(quantizer.encode(features), output.codes)
    torch.testing.assert_close(quantizer.decode(output.codes), output.features)
    assert output.codes.shape[-1] == config.n_codebooks
    assert output.features.shape == features.shape


def test_fsq_codes_are_their_own_nearest() -> None:
    config = FiniteScalarQuantizerConfig(levels=(8, 5, 4, 3), time_factors=())
    quantizer = build_quantizer(config, 4).inner
    assert isinstance(quantizer, FiniteScalarQuantizer)
    vectors = quantizer.codebooks[0]
    assert vectors.shape == (config.codebook_size, 4)
    assert len(torch.unique(vectors, dim=0)) == config.codebook_size
    assert -1 <= float(vectors.min()) <= float(vectors.max()) <= 1
    values = vectors * (quantizer.levels // 2)  # rounded values, inside the bounds of every channel
    codes = (quantizer._digits(values) * quantizer.basis).sum(-1)
    assert torch.equal(codes, torch.arange(config.codebook_size))


def test_fsq_reaches_exactly_all_codes() -> None:
    config = FiniteScalarQuantizerConfig(levels=(4, 3), time_factors=())
    quantizer = build_quantizer(config, 2).inner
    assert isinstance(quantizer, FiniteScalarQuantizer)
    torch.nn.init.eye_(quantizer.project_in.weight)
    codes = quantizer.encode(torch.randn(1, 5000, 2) * 3).flatten()
    assert sorted(codes.unique().tolist()) == list(range(12))
