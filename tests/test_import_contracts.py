"""Import contracts: the tree keeps them, and each of them fails on a planted import."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A contract's name, a module of the tree, and an import that breaks the contract there.
PLANTED = [
    ("Imports point one way", "codectok/audio/analysis/mel.py", "from codectok.codec import Codec"),
    ("Imports point one way", "codectok/tokens/table.py", "import codectok.pipelines.engine.run"),
    ("Imports point one way", "codectok/sources/source.py", "from codectok.exports import unitts"),
    ("Imports point one way", "pipelines/engine/planning/plan.py", "from codectok.cli.console import fail"),
    ("Jobs do not train", "pipelines/shard/job.py", "from codectok.train.config import TrainConfig"),
    ("Jobs do not train", "train/run/run.py", "from codectok.pipelines.engine.run import run_job"),
    ("Parts of training point one way", "train/data/loader.py", "from codectok.train.run.run import TrainingRun"),
    ("The engine knows no job", "pipelines/engine/run.py", "from codectok.pipelines.shard.job import ShardJob"),
    ("The model knows no files", "codectok/model/network.py", "import soundfile"),
    ("The model knows no files", "codectok/model/packing.py", "from codectok.storage import open_storage"),
    ("Only jobs and launchers of training know Ray", "codectok/tokens/reader.py", "import ray"),
    ("Only jobs and launchers of training know Ray", "train/trainer/trainer.py", "import ray"),
]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for folder in ("codectok", "pipelines", "train"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_import_contracts_are_kept() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("contract", "module", "statement"), PLANTED, ids=lambda value: value.replace(" ", "_"))
def test_import_contract_fails_on_planted_import(clone: Path, contract: str, module: str, statement: str) -> None:
    with (clone / module).open("a") as file:
        file.write(f"\n{statement}\n")
    result = lint_imports(clone)
    assert result.returncode == 1, result.stdout
    assert f"{contract}" in result.stdout.partition("Broken contracts")[2]
