"""Training checkpoints that are damaged: each is named in one sentence, and never resumed from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from codectok.errors import CheckpointError
from codectok.train import train
from tests.train.conftest import shards, tiny_config  # noqa: F401  # `shards` is a fixture

CHECKPOINT = "checkpoints/step-00000002"


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A run of two steps."""
    output = tmp_path_factory.mktemp("trained") / "run"
    train(tiny_config(shards, output, steps=2))
    return output


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def refuse_to_resume(shards: Path, run: Path, *words: str) -> None:  # noqa: F811
    with pytest.raises(CheckpointError) as refused:
        train(tiny_config(shards, run, steps=4))
    for word in ("step-00000002", *words):
        assert word in str(refused.value)
    assert "\n" not in str(refused.value)


def change_without_hash(run: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the state as an older version wrote it, without a hash."""
    path = run / CHECKPOINT / "training.pt"
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)
    (run / CHECKPOINT / "training.sha256").unlink()


def test_flipped_bit_is_noticed_anywhere(shards: Path, run: Path) -> None:  # noqa: F811
    path = run / CHECKPOINT / "training.pt"
    whole = path.read_bytes()
    for place in (100, len(whole) // 3, len(whole) // 2, len(whole) - 5):
        damaged = bytearray(whole)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        refuse_to_resume(shards, run, "hash")
    path.write_bytes(whole)
    assert train(tiny_config(shards, run, steps=4)).step == 4


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04.", bytes(1000)], ids=["empty", "zip", "pickle", "zeros"])
def test_state_that_is_none_is_refused(shards: Path, run: Path, content: bytes) -> None:  # noqa: F811
    (run / CHECKPOINT / "training.sha256").unlink()
    (run / CHECKPOINT / "training.pt").write_bytes(content)
    refuse_to_resume(shards, run)


@pytest.mark.parametrize(
    "name", ["step", "network", "optimizer", "adversary", "average", "position", "data_hash", "log"]
)
def test_missing_or_other_entry_is_named(shards: Path, run: Path, name: str) -> None:  # noqa: F811
    change_without_hash(run, lambda state: state.pop(name))
    refuse_to_resume(shards, run, name)


@pytest.mark.parametrize("value", [[1, 2], "text", 3.5])
def test_entry_of_another_type_is_named(shards: Path, run: Path, value: object) -> None:  # noqa: F811
    change_without_hash(run, lambda state: state.update(network=value))
    refuse_to_resume(shards, run, "network")


def test_tensor_of_another_shape_or_type_is_refused(shards: Path, run: Path) -> None:  # noqa: F811
    key = "decoder.pre.bias"
    for value in (torch.zeros(3), [0.0]):
        change_without_hash(run, lambda state, value=value: state["network"].update({key: value}))  # type: ignore[misc]
        refuse_to_resume(shards, run, key)
        (run / CHECKPOINT / "training.sha256").touch()
        (run / CHECKPOINT / "training.sha256").write_bytes(b"")


def test_moments_of_another_shape_are_refused(shards: Path, run: Path) -> None:  # noqa: F811
    def edit(state: dict[str, Any]) -> None:
        state["optimizer"]["param_groups"][0]["params"] = [0]

    change_without_hash(run, edit)
    refuse_to_resume(shards, run)


def test_sparse_moments_are_refused(shards: Path, run: Path) -> None:  # noqa: F811
    def sparse(state: dict[str, Any]) -> None:
        moments = next(iter(state["optimizer"]["state"].values()))
        moments["exp_avg_sq"] = moments["exp_avg_sq"].to_sparse()

    change_without_hash(run, sparse)
    refuse_to_resume(shards, run, "sparse")
