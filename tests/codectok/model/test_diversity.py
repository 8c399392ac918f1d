"""The diversity loss is small for equal use of codes, and its gradients lead there."""

from __future__ import annotations

import torch

from codectok.model.quantization.diversity import diversity_loss

CODES = torch.eye(8) * 10


def test_diversity_loss_is_between_equal_and_single_use() -> None:
    even = (CODES + 0.01 * torch.ones(8)).repeat(5, 1)
    one = even[:1].repeat(40, 1)
    assert float(diversity_loss(even, CODES)) < 0.01
    assert float(diversity_loss(one, CODES)) > 0.99


def test_diversity_gradients_are_finite_on_codes() -> None:
    vectors = CODES[:3].clone().requires_grad_()
    diversity_loss(vectors, CODES).backward()
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()


def test_diversity_descent_spreads_features_over_codes() -> None:
    generator = torch.Generator().manual_seed(0)
    # All are nearest to the first code.
    vectors = (CODES[0] * 0.6 + 2 * torch.rand(64, 8, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([vectors], lr=0.1)
    used = []
    for _ in range(200):
        loss = diversity_loss(vectors, CODES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        used.append(len(torch.cdist(vectors.detach(), CODES).argmin(1).unique()))
    assert used[0] == 1
    assert used[-1] == 8
