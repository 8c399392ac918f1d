"""Packages: a clone, a wheel and a source distribution are complete and run outside of the clone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import codectok

ROOT = Path(__file__).parents[1]
FOLDERS = ("codectok", "pipelines", "train")
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import codectok, codectok.pipelines, codectok.pipelines.engine.run, codectok.train
from codectok.train.config import load_train_config
assert all(module.__file__.startswith(sys.argv[1]) for module in (codectok, codectok.pipelines, codectok.train))
codec = codectok.load_codec("universal-small", "cpu")
assert len(codec.encode(__import__("numpy").zeros(24000, "float32"), 24000)) == 93
assert load_train_config("nano", []).codec.name == "nano"
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as a clone has it, symbolic links included."""
    folder = tmp_path_factory.mktemp("packaging") / "clone"
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def distributions(clone: Path) -> Path:
    """A folder with the source distribution, and the wheel that is built from it."""
    folder = clone.parent / "dist"
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(clone)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def packaged_files() -> set[str]:
    """Paths below `codectok/` that every distribution must hold."""
    return {
        f"codectok/{(path.relative_to(ROOT / folder) if folder == 'codectok' else path.relative_to(ROOT)).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".html") or path.name == "py.typed" or path.parent.parent.name == "weights"
    }


def run_program(site: Path) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, site], check=True, cwd=site.parent)


def test_command_runs_in_clone_without_installation(clone: Path) -> None:
    python = [sys.executable, "-c"]
    where = "import codectok.pipelines, codectok.train; print(codectok.__file__, codectok.train.__file__)"
    found = subprocess.run([*python, where], cwd=clone, capture_output=True, text=True, check=True).stdout.split()
    assert [Path(path).parents[0] for path in found] == [clone / "codectok", clone / "codectok" / "train"]
    shown = subprocess.run(
        [sys.executable, "-m", "codectok", "--help"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert "tokenize" in shown.stdout


def test_wheel_is_complete_and_runs(distributions: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(next(distributions.glob("*.whl"))) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0] for name in names} == {"codectok", f"codectok-{codectok.__version__}.dist-info"}
    assert packaged_files() <= set(names)
    run_program(tmp_path / "site")


def test_source_distribution_is_complete_and_runs(distributions: Path, tmp_path: Path) -> None:
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
        archive.extractall(tmp_path, filter="data")
    assert packaged_files() <= names
    run_program(next(tmp_path.glob("codectok-*")))
