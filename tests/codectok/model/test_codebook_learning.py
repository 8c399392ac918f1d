"""Learned codebooks stay alive, resume exactly, and never synchronize with a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from codectok.checkpoints.native import build_network
from codectok.config import (
    FiniteScalarQuantizerConfig,
    QuantizerConfig,
    SimVectorQuantizerConfig,
    VectorQuantizerConfig,
)
from codectok.model.network import CodecNetwork
from codectok.model.quantization import reservoir
from codectok.model.quantization.temporal import TemporalQuantizer
from codectok.model.quantization.usage import WINDOW_TOKENS_PER_CODE
from tests.helpers.codebook_learning import Clusters, first_codebook, learn, make_quantizer, simvq_codes_and_map
from tests.helpers.codecs import NANO
from tests.helpers.waiting import NoWaiting

SINGLE = VectorQuantizerConfig(codebook_size=64, codebook_dim=10)
GROUPED = VectorQuantizerConfig(n_groups=2, n_residuals=3, codebook_size=16, codebook_dim=5, time_factors=(2,))
SIMVQ = SimVectorQuantizerConfig(codebook_size=64, codebook_dim=10)
FSQ = FiniteScalarQuantizerConfig(levels=(4, 4, 3), time_factors=(2,))
EVERY = pytest.mark.parametrize("config", [SINGLE, GROUPED, SIMVQ, FSQ], ids=["single", "grouped", "simvq", "fsq"])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: with thousands of tiny steps, several threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def alive(quantizer: TemporalQuantizer, features: Tensor) -> float:
    """Share of codes used by `features` [B, T, C], of which there must be many more than codes."""
    codes = quantizer.encode(features)
    return len(codes.unique()) / quantizer.config.codebook_size


@pytest.mark.parametrize(
    ("expiry_share", "newest_batch_only", "survive"),
    [(0.05, False, True), (0.05, True, False), (0.0, False, False)],
    ids=["reservoir", "newest batch only", "no replacement"],
)
def test_reservoir_keeps_codes_alive_in_small_steps(
    expiry_share: float, newest_batch_only: bool, survive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = VectorQuantizerConfig(codebook_size=512, codebook_dim=16, time_factors=(), expiry_share=expiry_share)
    quantizer, clusters = make_quantizer(config, 16), Clusters(2048, 16)
    if newest_batch_only:
        monkeypatch.setattr(reservoir, "UPDATES_TO_FILL", 1)
        quantizer.inner.reservoir = reservoir.Reservoir(64, 16)
    quantizer.initialize_codebooks(clusters.batch(64, 2))
    learn(quantizer, clusters.batches(1600, 64, 2))
    share = alive(quantizer, clusters.batch(40 * 512, 2048))
    assert share > 0.9 if survive else share < 0.8


@pytest.mark.slow
def test_large_codebook_stays_alive_in_small_steps() -> None:
    config = VectorQuantizerConfig(codebook_size=16_384, codebook_dim=8, time_factors=())
    quantizer, clusters = make_quantizer(config, 8), Clusters(50_000, 8)
    quantizer.initialize_codebooks(clusters.batch(512, 512))
    steps_per_window = WINDOW_TOKENS_PER_CODE * 16_384 // 512
    learn(quantizer, clusters.batches(2 * steps_per_window, 512, 100))
    assert float(quantizer.codebook_metrics()["codebook_usage"]) > 0.9


def test_rarely_used_codes_are_not_replaced() -> None:
    config = VectorQuantizerConfig(codebook_size=256, codebook_dim=4, time_factors=())
    quantizer = make_quantizer(config, 4)
    book = first_codebook(quantizer)
    corners = torch.randn(256, 4) * 100
    book.embedding.copy_(corners)
    # Eight tokens per step: after most steps the moving average of most counts is almost zero.
    batches = (corners[torch.randint(256, (1, 8))] for _ in range(700))
    assert learn(quantizer, batches)[-1] == 0.0
    assert torch.allclose(book.embedding, corners)


@EVERY
def test_microbatches_equal_one_batch(config: QuantizerConfig) -> None:
    batch = Clusters(40, 12).batch(4 * 24, 40).view(4, 24, 12)
    whole, split = make_quantizer(config, 12), make_quantizer(config, 12)
    learn(whole, [batch])
    split.update_codebooks([split(microbatch).frames for microbatch in batch.split(1)])
    before = make_quantizer(config, 12).state_dict()
    for key, tensor in whole.state_dict().items():
        torch.testing.assert_close(split.state_dict()[key], tensor)
    assert any(not torch.equal(tensor, before[key]) for key, tensor in whole.state_dict().items())


@EVERY
def test_resumed_codebooks_equal_uninterrupted_ones(config: QuantizerConfig) -> None:
    batches = list(Clusters(300, 12).batches(60, 48, 12))
    whole, first, second = (make_quantizer(config, 12) for _ in range(3))
    expired = learn(whole, batches)
    learn(first, batches[:25])
    second.load_state_dict(first.state_dict())
    learn(second, batches[25:])
    assert isinstance(config, SimVectorQuantizerConfig | FiniteScalarQuantizerConfig) or max(expired[25:]) > 0
    for key, tensor in whole.state_dict().items():
        assert torch.equal(second.state_dict()[key], tensor), key


@EVERY
def test_training_step_never_synchronizes_with_gpu(config: QuantizerConfig) -> None:
    quantizer, clusters = make_quantizer(config, 12), Clusters(300, 12)
    batches = list(clusters.batches(45, 96, 12))
    with NoWaiting():
        for batch in batches:
            output = quantizer(batch.requires_grad_())
            (output.features.sum() + output.commitment_loss).backward()
            quantizer.update_codebooks([output.frames])
    assert quantizer.usage is not None
    assert quantizer.usage.last_tokens > 0
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        batches[0].sum().item()


def test_metrics_cover_last_full_window() -> None:
    quantizer = make_quantizer(SINGLE, 12)
    window = quantizer.usage
    assert window is not None
    even = torch.full((1, 64), WINDOW_TOKENS_PER_CODE // 2)
    lopsided = torch.zeros(1, 64, dtype=torch.int64)
    lopsided[0, :2] = 16 * WINDOW_TOKENS_PER_CODE
    assert not window.add(even, int(even.sum()))  # metrics show the first window while it fills
    assert float(window.metrics()["codebook_usage"]) == 1.0
    assert window.add(even, int(even.sum()))
    assert not window.add(lopsided, int(lopsided.sum()))
    assert {name: float(value) for name, value in window.metrics().items()} == pytest.approx(
        {"codebook_usage": 1, "codebook_entropy": 6, "codebook_perplexity_share": 1, "codebook_expired_share": 0}
    )
    assert window.add(lopsided, int(lopsided.sum()))
    shown = {name: float(value) for name, value in window.metrics().items()}
    assert shown["codebook_usage"] == shown["codebook_perplexity_share"] == pytest.approx(2 / 64)
    assert shown["codebook_entropy"] == pytest.approx(1)


def test_expired_share_is_logged() -> None:
    config = VectorQuantizerConfig(codebook_size=64, codebook_dim=12, time_factors=())
    quantizer = make_quantizer(config, 12)
    first_codebook(quantizer).embedding[16:] = 1e6
    expired = learn(quantizer, Clusters(500, 12).batches(WINDOW_TOKENS_PER_CODE, 64, 64))
    assert expired[:-1] == [0.0] * (WINDOW_TOKENS_PER_CODE - 1)
    assert expired[-1] == pytest.approx(48 / 64, abs=0.1)


def test_evaluation_mode_leaves_codebooks_unchanged_and_counts_their_use() -> None:
    quantizer = make_quantizer(SINGLE, 12).eval()
    before = {key: tensor.clone() for key, tensor in quantizer.inner.state_dict().items()}
    learn(quantizer, Clusters(500, 12).batches(3, 64, 64))
    assert all(torch.equal(tensor, before[key]) for key, tensor in quantizer.inner.state_dict().items())
    assert 0 < float(quantizer.codebook_metrics()["codebook_usage"]) < 1


def test_simvq_map_follows_features() -> None:
    quantizer = make_quantizer(SimVectorQuantizerConfig(codebook_size=128, codebook_dim=4, time_factors=()), 4)
    parameters = dict(quantizer.named_parameters())
    assert list(parameters) == ["inner.layers.0.parametrizations.embedding.0.weight"]
    clusters = Clusters(500, 4)
    quantizer.initialize_codebooks(clusters.batch(512, 500))
    codes, _ = simvq_codes_and_map(quantizer)
    fixed = codes.clone()
    grown = 3.0  # change of scale as the encoder learns
    test_features = grown * clusters.batch(128 * 20, 500)
    used, losses = alive(quantizer, test_features), []
    optimizer = torch.optim.Adam(parameters.values(), lr=0.02)
    for batch in clusters.batches(400, 64, 8):
        loss = quantizer(grown * batch).commitment_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    assert used < 0.85 < 0.95 < alive(quantizer, test_features)
    codes, _ = simvq_codes_and_map(quantizer)
    assert torch.equal(codes, fixed)


def test_simvq_is_folded_and_can_be_trained_further() -> None:
    config = NANO.model_copy(update={"quantizer": SimVectorQuantizerConfig(codebook_size=500, codebook_dim=48)})
    network = CodecNetwork(config).eval()
    network.prepare_for_training()
    log_mel = torch.randn(2, 100, config.mel.n_mels)
    _, linear_map = simvq_codes_and_map(network.quantizer)
    with torch.no_grad():
        network.quantizer.initialize_codebooks(network.encoder(log_mel))
        linear_map.weight.add_(0.05 * torch.randn(48, 48))
        trained = network(log_mel)
    assert len(trained.quantizer.codes.unique()) > 20
    plain, again = (build_network(config, network.inference_state_dict(), "the trained network") for _ in range(2))
    assert plain.state_dict().keys() == CodecNetwork(config).state_dict().keys()
    again.prepare_for_training()
    for folded in (plain, again):
        assert torch.equal(folded.encode(log_mel), trained.quantizer.codes)
        torch.testing.assert_close(folded.decode(trained.quantizer.codes), trained.waveform, rtol=1e-4, atol=1e-5)
