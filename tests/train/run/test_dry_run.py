"""What `--dry-run` tries: the part of one rank, from the start of the codebooks on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from typer.testing import CliRunner

from codectok import InputError
from codectok.cli.main import app
from codectok.train.config import TrainConfig, load_stages
from codectok.train.launch.launch import run_training
from codectok.train.run import codebook_init as codebook_start
from codectok.train.run.codebook_init import start_bytes
from codectok.train.run.dry_run import rehearse
from codectok.train.trainer.trainer import Trainer
from tests.train.conftest import TINY, first_batches, tiny_config


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Trainer, int]]:
    """Trainers and how many segments they got, of every step that is made."""
    made: list[tuple[Trainer, int]] = []
    step = Trainer.train_step

    def watched(self: Trainer, waveform: Tensor) -> dict[str, Tensor]:
        made.append((self, len(waveform)))
        return step(self, waveform)

    monkeypatch.setattr(Trainer, "train_step", watched)
    return made


def dry_run(config: TrainConfig, folder: Path, *options: str) -> Result:
    path = folder / "run.yaml"
    path.write_text(config.model_dump_json())
    return CliRunner().invoke(app, ["train", str(path), "--dry-run", *options])


@pytest.mark.parametrize(
    ("options", "share"), [([], 4), (["--workers", "2"], 2), (["--engine", "torchrun", "--workers", "4"], 1)]
)
def test_the_part_of_one_rank_is_tried(
    options: list[str], share: int, steps: list[tuple[Trainer, int]], shards: Path, tmp_path: Path
) -> None:
    found = dry_run(tiny_config(shards, tmp_path / "run"), tmp_path, *options)
    assert found.exit_code == 0, found.output
    assert [size for _, size in steps] == [share, share]
    assert (f"{share} on each rank" in found.stdout) == (share < 4)


def test_ranks_that_nobody_has_counted_are_said_to_be_assumed(shards: Path, tmp_path: Path) -> None:
    found = dry_run(tiny_config(shards, tmp_path / "run", "device=cpu"), tmp_path, "--address", "auto")
    assert "1 assumed" in found.stdout


def test_batches_that_ranks_cannot_share_are_refused_as_in_the_run(shards: Path, tmp_path: Path) -> None:
    found = dry_run(tiny_config(shards, tmp_path / "run", "accumulation=2"), tmp_path, "--workers", "4")
    assert found.exit_code == 2
    assert "A batch of 4 cannot be shared evenly by 4 ranks in 2 parts each" in found.stderr


def test_a_codec_that_is_still_to_be_made_is_learned_from_all_the_same(
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
    rehearse(student, ancestor=teacher.codec)
    assert steps[-1][0]._teacher is not None
    assert not (tmp_path / "runs").exists()
    _, other = load_stages("dms", [*overrides, "stages.student.codec.encoder.kernel_size=5"])
    with pytest.raises(InputError, match="another encoder than is to be trained: kernel_size"):
        rehearse(other, ancestor=teacher.codec)


def test_a_rehearsal_begins_where_the_run_would(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_training(tiny_config(shards, tmp_path / "run", steps=3), lambda step, scalars: None)
    monkeypatch.setattr(Trainer, "initialize_codebooks", lambda *_: pytest.fail("there is nothing to start"))
    assert rehearse(tiny_config(shards, tmp_path / "run", steps=9)).start is None
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000003"
    other = [f"resume_from={checkpoint}", "codec.quantizer.ema_decay=0.9"]
    assert rehearse(tiny_config(shards, tmp_path / "other", *other, steps=9)).start is None
    with pytest.raises(InputError, match="has made 3 steps, and steps=3"):
        rehearse(tiny_config(shards, tmp_path / "other", *other, steps=3))


class Peak(TorchDispatchMode):
    """Most bytes that tensors made in this context held at once, beside those of a module."""

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


STARTS = {
    "wide codes": "{type: grvq, codebook_size: 2048, codebook_dim: 512, time_factors: []}",
    "short codes": "{type: grvq, codebook_size: 2048, codebook_dim: 64, n_residuals: 2, time_factors: []}",
    "groups": "{type: grvq, codebook_size: 1024, codebook_dim: 48, n_groups: 2, time_factors: [2]}",
    "simvq": "{type: simvq, codebook_size: 2048, codebook_dim: 128}",
}


@pytest.mark.parametrize("quantizer", STARTS)
def test_an_estimated_start_takes_what_a_real_one_takes(quantizer: str, shards: Path, tmp_path: Path) -> None:
    wide = ["codec.encoder.dims=[96]", "data.segment_seconds=1"]
    config = tiny_config(shards, tmp_path / "run", f"codec.quantizer={STARTS[quantizer]}", *wide, steps=1000)
    trainer = Trainer(config, torch.device("cpu"))
    with Peak(trainer.network) as peak:
        trainer.initialize_codebooks(first_batches(config))
    assert start_bytes(config) == pytest.approx(peak.n_bytes, rel=0.05)


def test_a_start_that_takes_long_on_a_cpu_is_estimated(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codebook_start, "MOST_ON_CPU", 0.0)
    monkeypatch.setattr(Trainer, "initialize_codebooks", lambda *_: pytest.fail("it is not to be tried"))
    config = tiny_config(shards, tmp_path / "run", "codec.quantizer.codebook_size=65536")
    found = rehearse(config)
    assert found.start is not None and found.start.seconds > 0
    assert found.start.estimated_bytes == start_bytes(config)
    assert found.peak_bytes > start_bytes(config)
