"""The search by kernels finds the nearest codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# On a machine with a GPU kernels are compiled for it.
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    return torch.cdist(vectors.double(), codes.double()).argmin(1)


def found_by_kernels(vectors: Tensor, codes: Tensor) -> Tensor:
    from codectok.model.kernels.nearest import FusedSearch
    from codectok.model.quantization.search import CodeSearch, _first_of_equals

    exact = CodeSearch(codes, -codes.square().sum(1) / 2, codes.mean(0))
    tensors = (exact._table, exact._offset, exact._centre, _first_of_equals(codes))
    return FusedSearch(*(tensor.to(DEVICE) for tensor in tensors))(vectors.to(DEVICE)).cpu()


@pytest.mark.parametrize(("n_codes", "dim"), [(3, 16), (1000, 60), (1024, 64)])
def test_fused_search_finds_nearest_code(n_codes: int, dim: int) -> None:
    codes, vectors = torch.randn(n_codes, dim), torch.randn(40, dim)
    assert torch.equal(found_by_kernels(vectors, codes), nearest(vectors, codes))


def test_fused_search_ties_go_to_lowest_index() -> None:
    codes = torch.randn(600, 12)
    codes[[500, 300, 200, 70, 30]] = 0.0
    codes[599] = codes[100]
    assert found_by_kernels(torch.stack([torch.zeros(12), codes[100]]), codes).tolist() == [30, 100]


def test_fused_search_distinguishes_close_codes() -> None:
    # Groups of codes that are almost equal, beside each other in the codebook.
    codes = torch.randn(25, 32).repeat_interleave(40, 0) + 1e-3 * torch.randn(1000, 32)
    vectors = codes[torch.randint(1000, (60,))] + 0.3 * torch.randn(60, 32)
    assert float((found_by_kernels(vectors, codes) == nearest(vectors, codes)).float().mean()) > 0.95


@pytest.mark.parametrize("factor", [1e-20, 1e15])
def test_fused_search_at_any_magnitude(factor: float) -> None:
    codes, vectors = torch.randn(500, 32), torch.randn(30, 32)
    vectors[0] *= 1e4  # one row does not decide the scale of another
    expected = nearest(vectors, codes)
    assert torch.equal(found_by_kernels(factor * vectors, factor * codes), expected)


def test_rows_of_fused_search_do_not_depend_on_each_other() -> None:
    codes, vectors = torch.randn(300, 32), torch.randn(130, 32)
    together = found_by_kernels(vectors, codes)
    assert torch.equal(found_by_kernels(vectors[125:], codes), together[125:])
