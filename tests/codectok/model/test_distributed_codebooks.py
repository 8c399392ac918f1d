"""Several ranks learn the same codebooks as one rank with all batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from codectok.config import QuantizerConfig, SimVectorQuantizerConfig, VectorQuantizerConfig
from codectok.model.quantization.grvq import ResidualVectorQuantizer
from tests.helpers.codebook_learning import Clusters, learn, make_quantizer
from tests.helpers.ranks import run_on_ranks

DIM, STEPS = 12, 40
# The number of tokens in a step determines whether ranks exchange tokens or sums.
CASES: dict[str, tuple[QuantizerConfig, int]] = {
    "one codebook, tokens": (VectorQuantizerConfig(codebook_size=64, codebook_dim=20), 48),
    "one codebook, sums": (VectorQuantizerConfig(codebook_size=32, codebook_dim=20), 64),
    "unprojected sums": (VectorQuantizerConfig(codebook_size=32, codebook_dim=DIM, time_factors=()), 64),
    "residual, tokens": (VectorQuantizerConfig(n_groups=2, n_residuals=3, codebook_size=16, codebook_dim=5), 24),
    "residual, sums": (
        VectorQuantizerConfig(
            n_groups=2, n_residuals=2, codebook_size=8, codebook_dim=3, time_factors=(2,), expiry_share=0.8
        ),
        64,
    ),
    "simvq": (SimVectorQuantizerConfig(codebook_size=32, codebook_dim=8), 24),
}


def train_all() -> dict[str, tuple[dict[str, Tensor], list[float]]]:
    """Train on this rank's share of every batch; return the state and the expired shares of every case."""
    rank, n_ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    results = {}
    for name, (config, frames) in CASES.items():
        clusters = Clusters(300, DIM)
        start, *batches = (torch.cat([clusters.batch(frames, 6) for _ in range(2)]) for _ in range(STEPS + 1))
        own = [batch.chunk(n_ranks)[rank] for batch in batches]
        quantizer = make_quantizer(config, DIM)
        quantizer.initialize_codebooks(start, seed=1)
        expired = learn(quantizer, own)
        results[name] = (quantizer.state_dict(), expired)
    return results


@pytest.fixture(scope="module")
def both() -> tuple[dict, list[dict]]:
    return train_all(), run_on_ranks(train_all, 2)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_learn_codebook_of_one(case: str, both: tuple[dict, list[dict]]) -> None:
    alone, ranks = both
    state, expired = alone[case]
    assert max(expired) > 0 or isinstance(CASES[case][0], SimVectorQuantizerConfig)
    for rank_state, rank_expired in (rank[case] for rank in ranks):
        assert rank_expired == expired
        for key, tensor in state.items():
            torch.testing.assert_close(rank_state[key], tensor, rtol=1e-4, atol=1e-5, msg=lambda m: f"{key}: {m}")  # noqa: B023
    for key in state:
        assert torch.equal(ranks[0][case][0][key], ranks[1][case][0][key]), f"the ranks differ in {key}"


def test_cases_cover_tokens_and_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def spy(name: str, method: Callable[..., None]) -> Callable[..., None]:
        def noted(*arguments: Any) -> None:
            called.append(name)
            method(*arguments)

        return noted

    for name in ("_learn_from_tokens", "_learn_from_sums", "_learn_from_sums_of_residuals"):
        monkeypatch.setattr(ResidualVectorQuantizer, name, spy(name, getattr(ResidualVectorQuantizer, name)))
    found = {}
    for case, (config, frames) in CASES.items():
        called.clear()
        learn(make_quantizer(config, DIM), [Clusters(300, DIM).batch(2 * frames, 6)])
        found[case] = set(called)
    assert found == {
        "one codebook, tokens": {"_learn_from_tokens"},
        "one codebook, sums": {"_learn_from_sums"},
        "unprojected sums": {"_learn_from_sums"},
        "residual, tokens": {"_learn_from_tokens"},
        "residual, sums": {"_learn_from_sums_of_residuals"},
        "simvq": set(),
    }
