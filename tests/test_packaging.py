"""The wheel: one name in site-packages, complete, and usable outside the clone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import codectok, codectok.pipelines.engine, codectok.train.config
from codectok.train.config import load_train_config
assert all(module.__file__.startswith(sys.argv[1]) for module in (codectok, codectok.pipelines, codectok.train))
codec = codectok.Codec.from_config("nano")
assert len(codec.encode(__import__("numpy").zeros(24000, "float32"), 24000)) == 93
assert load_train_config("nano", []).codec.name == "nano"
"""


def test_the_wheel_is_complete_and_runs_outside_the_clone(tmp_path: Path) -> None:
    copy = tmp_path / "clone"  # building leaves files behind
    for folder in ("codectok", "pipelines", "train"):
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, copy],
        check=True,
        capture_output=True,
    )
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0] for name in names} == {
        "codectok",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }
    expected = {
        f"codectok/{path.relative_to(ROOT / folder).as_posix()}" if folder == "codectok"
        else f"codectok/{path.relative_to(ROOT).as_posix()}"
        for folder in ("codectok", "pipelines", "train")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml") or path.name == "py.typed"
    }  # fmt: skip
    assert expected <= set(names)
    subprocess.run([sys.executable, "-c", PROGRAM, tmp_path / "site"], check=True, cwd=tmp_path)


def test_imports_point_one_way() -> None:
    """cli -> pipelines, train -> library; the model knows no files, audio no model.

    Only pipelines know Ray, and what starts a training run there.
    """
    starts_ray = ROOT / "train" / "ray_launch.py"
    forbidden = {
        "codectok/model": (
            "codectok.audio",
            "codectok.checkpoints",
            "pipelines",
            "train",
            "ray",
            "..audio",
            "...audio",
        ),
        "codectok/audio": ("..model", "..codec", "pipelines", "train", "ray"),
        "codectok/checkpoints": ("..codec", "..audio", "pipelines", "train", "ray"),
        "codectok/tokens": ("pipelines", "codectok.train", "ray"),
        "codectok/evaluation": ("pipelines", "codectok.train", "ray"),
        "pipelines": ("codectok.train", "codectok.cli"),
        "train": ("codectok.pipelines", "codectok.cli", "ray"),
    }
    wrong = [
        f"{path}: {line}"
        for folder, names in forbidden.items()
        for path in (ROOT / folder).rglob("*.py")
        if path != starts_ray
        for line in path.read_text().splitlines()
        if line.lstrip().startswith(("import ", "from "))
        and any(line.split()[1] == name or line.split()[1].startswith(f"{name}.") for name in names)
    ]
    assert wrong == []
