from __future__ import annotations

import pytest
import torch

from codectok.config import VectorQuantizerConfig
from codectok.model.quantization.grvq import ResidualVectorQuantizer
from codectok.model.quantization.search import CodeSearch
from tests.helpers.codebook_learning import codebooks_of


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def nearest(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    return torch.cdist(vectors.double(), codes.double()).argmin(1)


def search(codes: torch.Tensor, reduced: bool = False) -> CodeSearch:
    return CodeSearch(codes, -codes.square().sum(1) / 2, codes.mean(0), "reduced" if reduced else "exact")


@pytest.mark.parametrize("n_codes", [2, 100, 4096, 4097, 10_000])
def test_search_finds_nearest_code(n_codes: int) -> None:
    codes, vectors = torch.randn(n_codes, 12), torch.randn(700, 12)
    assert torch.equal(search(codes)(vectors), nearest(vectors, codes))


@pytest.mark.parametrize("reduced", [False, True])
def test_search_ties_go_to_lowest_index(reduced: bool) -> None:
    codes = torch.randn(9024, 12)
    codes[[8500, 5000, 4200, 70, 30]] = 0.0
    codes[9000] = codes[200]
    found = search(codes, reduced)(torch.stack([torch.zeros(12), codes[200]]))
    assert found.tolist() == [30, 200]


def test_reduced_search_with_distant_codes() -> None:
    codes = torch.randn(8192, 32) * torch.rand(8192, 1).exp().pow(4)
    vectors = 0.3 * torch.randn(400, 32) + codes[torch.randint(8192, (400,))] * 0.5
    found = search(codes, reduced=True)(vectors)
    assert len(found.unique()) > 100
    assert float((found == nearest(vectors, codes)).float().mean()) > 0.99


def test_reduced_search_distinguishes_close_codes() -> None:
    # Like an undertrained codebook: a hundred codes that are equal in bfloat16.
    codes = torch.randn(82, 32).repeat_interleave(100, 0)[:8192] + 1e-3 * torch.randn(8192, 32)
    vectors = codes[torch.randint(8192, (400,))] + 0.3 * torch.randn(400, 32)
    found = search(codes, reduced=True)(vectors)
    assert float((found == nearest(vectors, codes)).float().mean()) > 0.99


@pytest.mark.parametrize("dead", [100, 3000, 8192 - 20])
def test_reduced_search_with_dead_codes(dead: int) -> None:
    codes = torch.randn(8192, 16)
    codes[torch.randperm(8192)[:dead]] = 0.0
    vectors = torch.cat([torch.zeros(3, 16), 2 * torch.rand(400, 1) * torch.randn(400, 16)])
    found = search(codes, reduced=True)(vectors)
    assert found[:3].tolist() == [int((codes == 0).all(1).nonzero()[0])] * 3
    assert float((found == search(codes)(vectors)).float().mean()) > 0.99
    assert 0.02 < float((codes[found] == 0).all(1).float().mean()) < 0.98


def test_reduced_search_rescores_in_float32() -> None:
    # Far from the origin and close to each other: bfloat16 alone confuses most of them.
    codes, vectors = torch.randn(8192, 64) + 10, torch.randn(500, 64) + 10
    in_half = (vectors.bfloat16() @ codes.bfloat16().T).float() - codes.square().sum(1) / 2
    assert float((in_half.argmax(1) == nearest(vectors, codes)).float().mean()) < 0.5
    assert float((search(codes, reduced=True)(vectors) == nearest(vectors, codes)).float().mean()) > 0.99


@pytest.mark.parametrize(("codebook_size", "codebook_dim", "folded"), [(6000, 300, True), (100, 8, False)])
def test_projection_is_folded_where_faster(codebook_size: int, codebook_dim: int, folded: bool) -> None:
    config = VectorQuantizerConfig(codebook_size=codebook_size, codebook_dim=codebook_dim)
    quantizer = ResidualVectorQuantizer(config, 64)
    (codebook,) = codebooks_of(quantizer)
    codebook.embedding.normal_()
    assert isinstance(quantizer.project_in, torch.nn.Linear)
    torch.nn.init.normal_(quantizer.project_in.weight)
    torch.nn.init.normal_(quantizer.project_in.bias)
    features = torch.randn(600, 64)
    calls = []
    quantizer.project_in.register_forward_hook(lambda *_: calls.append(1))
    quantizer.requires_grad_(False)
    with torch.inference_mode():
        codes = quantizer.frame_encoder("exact")(features)
        assert bool(calls) != folded
        assert torch.equal(codes, quantizer.encode(features.unsqueeze(0))[0])
        assert torch.equal(codes[:, 0], nearest(quantizer.project_in(features), codebook.embedding))


def test_training_with_many_features_uses_folded_search(monkeypatch: pytest.MonkeyPatch) -> None:
    config = VectorQuantizerConfig(codebook_size=500, codebook_dim=64)
    quantizer = ResidualVectorQuantizer(config, 8).train()
    (codebook,) = codebooks_of(quantizer)
    codebook.embedding.normal_()
    assert isinstance(quantizer.project_in, torch.nn.Linear)
    torch.nn.init.normal_(quantizer.project_in.weight)
    features = torch.randn(7, 900, 8) + 3
    plain = quantizer.encode(features)
    monkeypatch.setattr(codebook, "search", None)  # the search of the codebook must not be called
    assert float((quantizer(features).codes == plain).float().mean()) > 0.999


def test_training_with_few_features_uses_codebook_search(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer = ResidualVectorQuantizer(VectorQuantizerConfig(codebook_size=500, codebook_dim=64), 8).train()
    features = torch.randn(1, 10, 8)
    (codebook,) = codebooks_of(quantizer)
    n_rows: list[int] = []
    search = codebook.search

    def counted(rows: torch.Tensor) -> torch.Tensor:
        n_rows.append(len(rows))
        return search(rows)

    monkeypatch.setattr(codebook, "search", counted)
    assert torch.equal(quantizer(features).codes, quantizer.encode(features))
    assert n_rows == [10, 10]
