"""Dry runs: the work of one rank, from the initialization of the codebooks on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from typer.testing import CliRunner, Result

from codectok import InputError
from codectok.cli.main import app
from codectok.config import SimVectorQuantizerConfig, VectorQuantizerConfig
from codectok.train import TrainConfig, Trainer, dry_run, load_stages, train
from codectok.train.memory import peak_memory, reset_peak_memory
from codectok.train.run import codebook_init
from codectok.train.run.codebook_init import codebook_init_bytes
from tests.train.conftest import TINY, first_batches, tiny_config


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Trainer, int]]:
    """Trainer and number of segments of every step taken."""
    made: list[tuple[Trainer, int]] = []
    step = Trainer.train_step

    def watched(self: Trainer, waveform: Tensor) -> dict[str, Tensor]:
        made.append((self, len(waveform)))
        return step(self, waveform)

    monkeypatch.setattr(Trainer, "train_step", watched)
    return made


def dry_run_command(config: TrainConfig, folder: Path, *options: str) -> Result:
    path = folder / "run.yaml"
    path.write_text(config.model_dump_json())
    return CliRunner().invoke(app, ["train", str(path), "--dry-run", *options])


@pytest.mark.parametrize(
    ("options", "share"), [([], 4), (["--workers", "2"], 2), (["--engine", "torchrun", "--workers", "4"], 1)]
)
def test_dry_run_does_the_work_of_one_rank(
    options: list[str], share: int, steps: list[tuple[Trainer, int]], shards: Path, tmp_path: Path
) -> None:
    found = dry_run_command(tiny_config(shards, tmp_path / "run"), tmp_path, *options)
    assert found.exit_code == 0, found.output
    assert [size for _, size in steps] == [share, share]
    assert (f"{share} on each rank" in found.stdout) == (share < 4)


def test_unknown_number_of_ranks_is_called_assumed(shards: Path, tmp_path: Path) -> None:
    found = dry_run_command(tiny_config(shards, tmp_path / "run", "device=cpu"), tmp_path, "--address", "auto")
    assert "1 assumed" in found.stdout


def test_dry_run_of_a_started_run_does_not_need_the_initial_checkpoint(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "teacher", steps=1))
    config = tiny_config(shards, tmp_path / "student", f"init_from={tmp_path / 'teacher'}", steps=3)
    train(config)
    shutil.rmtree(tmp_path / "teacher")
    dry_run(config)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak counts from the start")
def test_peak_memory_is_measured_again() -> None:
    device, n_bytes = torch.device("cpu"), 1 << 29
    reset_peak_memory(device)
    before = peak_memory(device)
    large = torch.ones(n_bytes, dtype=torch.uint8)
    del large
    assert peak_memory(device) > before + 0.9 * n_bytes
    reset_peak_memory(device)
    assert peak_memory(device) < before + 0.5 * n_bytes


def test_dry_run_refuses_batches_that_ranks_cannot_share(shards: Path, tmp_path: Path) -> None:
    found = dry_run_command(tiny_config(shards, tmp_path / "run", "accumulation=2"), tmp_path, "--workers", "4")
    assert found.exit_code == 2
    assert "A batch of 4 cannot be shared evenly by 4 ranks" in found.stderr


def test_dry_run_replaces_a_missing_initial_checkpoint(
    steps: list[tuple[Trainer, int]], shards: Path, tmp_path: Path
) -> None:
    tiny = [override for override in TINY if not override.startswith("codec.quantizer")]
    overrides = [
        "codec.quantizer={codebook_size: 32, codebook_dim: 8, n_groups: 1, n_residuals: 1}",
        f"data.shards={shards}", f"output={tmp_path / 'runs'}", "precision=float32", "data.num_workers=0", *tiny,
        "discriminators.period.channels=[4,4]", "discriminators.scale.layers=[{channels: 4, kernel_size: 5}]",
        "discriminators.stft.channels=4", "stages.student.loss.distillation=1.0", "steps=3",
    ]  # fmt: skip
    teacher, student = load_stages("dms", overrides)
    dry_run(student, initial_config=teacher.codec)
    assert steps[-1][0]._teacher is not None
    assert not (tmp_path / "runs").exists()
    _, other = load_stages("dms", [*overrides, "stages.student.codec.encoder.kernel_size=5"])
    with pytest.raises(InputError, match=r"another encoder .*: kernel_size"):
        dry_run(other, initial_config=teacher.codec)


def test_dry_run_starts_where_the_run_would(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny_config(shards, tmp_path / "run", steps=3))
    monkeypatch.setattr(Trainer, "initialize_codebooks", lambda *_: pytest.fail("the codebooks exist already"))
    assert dry_run(tiny_config(shards, tmp_path / "run", steps=9)).codebook_init is None
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000003"
    other = [f"resume_from={checkpoint}", "codec.quantizer.ema_decay=0.9"]
    assert dry_run(tiny_config(shards, tmp_path / "other", *other, steps=9)).codebook_init is None
    with pytest.raises(InputError, match="at step 3, and steps=3"):
        dry_run(tiny_config(shards, tmp_path / "other", *other, steps=3))


class Peak(TorchDispatchMode):
    """Peak bytes of all tensors created in this context, except those of a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.n_bytes = 0
        self._before = {tensor.untyped_storage()._cdata for tensor in module.state_dict().values()}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._before:
                storage = StorageWeakRef(tensor.untyped_storage())
                self._alive.setdefault(storage.cdata, (storage, tensor.untyped_storage().nbytes()))
        self.n_bytes = max(self.n_bytes, sum(size for _, size in self._alive.values()))
        return result


QUANTIZERS = {
    "wide codes": "{type: grvq, codebook_size: 2048, codebook_dim: 512, time_factors: []}",
    "short codes": "{type: grvq, codebook_size: 2048, codebook_dim: 64, n_residuals: 2, time_factors: []}",
    "groups": "{type: grvq, codebook_size: 1024, codebook_dim: 48, n_groups: 2, time_factors: [2]}",
    "simvq": "{type: simvq, codebook_size: 2048, codebook_dim: 128}",
}


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_estimated_codebook_init_memory_is_accurate(quantizer: str, shards: Path, tmp_path: Path) -> None:
    wide = ["codec.encoder.dims=[96]", "data.segment_seconds=1"]
    config = tiny_config(shards, tmp_path / "run", f"codec.quantizer={QUANTIZERS[quantizer]}", *wide, steps=1000)
    trainer = Trainer(config, torch.device("cpu"))
    with Peak(trainer.network) as peak:
        trainer.initialize_codebooks(first_batches(config))
    learned = config.codec.quantizer
    assert isinstance(learned, VectorQuantizerConfig | SimVectorQuantizerConfig)
    assert codebook_init_bytes(config, learned) == pytest.approx(peak.n_bytes, rel=0.05)


def test_long_codebook_init_on_cpu_is_estimated(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codebook_init, "MAX_MULTIPLICATIONS_ON_CPU", 0.0)
    monkeypatch.setattr(Trainer, "initialize_codebooks", lambda *_: pytest.fail("the codebooks were initialized"))
    config = tiny_config(shards, tmp_path / "run", "codec.quantizer.codebook_size=65536")
    found = dry_run(config)
    learned = config.codec.quantizer
    assert isinstance(learned, VectorQuantizerConfig)
    estimate = codebook_init_bytes(config, learned)
    assert found.codebook_init is not None and found.codebook_init.seconds > 0
    assert found.codebook_init.estimated_bytes == estimate
    assert found.peak_bytes > estimate
