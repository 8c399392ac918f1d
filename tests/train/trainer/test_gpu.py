"""Training on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codectok.train import Trainer
from tests.train.conftest import first_batches, tiny_config

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_step_does_not_wait_for_the_gpu(precision: str, shards: Path, tmp_path: Path) -> None:
    options = (f"precision={precision}", "discriminators.start_step=0", "accumulation=2", "weight_average=0.9")
    config = tiny_config(shards, tmp_path / "run", *options)
    trainer = Trainer(config, CUDA)
    first, second, *rest = (batch.pin_memory() for batch in first_batches(config))
    for batch in (first, second):  # one-time initialization
        trainer.train_step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        scalars = [trainer.train_step(batch) for batch in rest]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(bool(torch.isfinite(value)) for values in scalars for value in values.values())


def test_gpu_losses_match_cpu(shards: Path, tmp_path: Path) -> None:
    config = tiny_config(shards, tmp_path / "run", "codec.encoder.drop_path_rate=0.0", "discriminators.start_step=0")
    batch = next(first_batches(config))
    # Convolutions on the GPU run in TF32.
    on_cpu, on_gpu = (Trainer(config, device).train_step(batch) for device in (torch.device("cpu"), CUDA))
    assert {name: float(value) for name, value in on_gpu.items()} == pytest.approx(
        {name: float(value) for name, value in on_cpu.items()}, rel=1e-2
    )
