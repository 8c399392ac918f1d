"""Files and folders that are written completely or not at all, and what killed writers leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from codectok.atomic import (
    is_held,
    is_temporary,
    leftovers,
    remove_leftovers,
    remove_leftovers_in,
    replacing,
    replacing_folder,
    temporary_folder,
)

WRITERS = {
    "replacing": "with replacing(Path(sys.argv[1])) as path: path.write_text('half'); die()",
    "replacing_folder": "with replacing_folder(Path(sys.argv[1])) as path: (path / 'file').write_text('half'); die()",
}


def killed(writer: str, path: Path) -> None:
    """Let a process die while it writes `path`."""
    script = (
        "import os, sys; from pathlib import Path; from codectok.atomic import *\n"
        f"def die(): os.kill(os.getpid(), {int(signal.SIGKILL)})\n{WRITERS[writer]}"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("writer", list(WRITERS))
@pytest.mark.parametrize("name", ["out", "run[1]", "a.b", "two words ü"])
def test_killed_writer_leaves_a_leftover_that_is_removed(writer: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    killed(writer, path)
    (leftover,) = tmp_path.iterdir()
    assert is_temporary(leftover)
    assert leftovers(path) == [leftover]
    assert leftovers(tmp_path / "other") == []
    remove_leftovers(path)
    assert not list(tmp_path.iterdir())


def test_new_folder_removes_leftovers(tmp_path: Path) -> None:
    killed("replacing_folder", tmp_path / "out")
    with replacing_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_living_writers_are_left_alone(tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as file, replacing_folder(tmp_path / "out") as folder:
        file.write_text("whole")
        (folder / "file").write_text("whole")
        for path in (tmp_path / "file", tmp_path / "out"):
            assert leftovers(path) == []
            remove_leftovers(path)
        remove_leftovers_in(tmp_path)
        with replacing_folder(tmp_path / "out", overwrite=True):
            pass
    assert (tmp_path / "file").read_text() == "whole"


def test_file_is_held_until_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.extend(map(is_held, tmp_path.glob(".file.*"))))
    with replacing(tmp_path / "file") as path:
        path.write_text("whole")
    assert synced == [True]


def test_temporary_folders_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed("replacing_folder", tmp_path / f"staging-{os.getuid()}")
    with temporary_folder("staging") as one, temporary_folder("staging") as other:
        (one / "file").write_text("whole")
        assert sorted(tmp_path.glob("*.tmp")) == sorted([one, other])
        assert one.stat().st_mode & 0o077 == 0
    assert not list(tmp_path.glob("*.tmp"))


def test_processes_leave_temporary_folders_of_each_other_alone(tmp_path: Path) -> None:
    script = (
        "import sys, tempfile; from codectok.atomic import temporary_folder\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "for _ in range(200):\n"
        "    with temporary_folder('staging') as folder: (folder / 'file').write_text('whole')\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]


def test_only_temporary_names_are_removed(tmp_path: Path) -> None:
    kept = [".out.tmp", ".out.12345678.tmp.txt", "out.12345678.tmp", ".out.1234567g.tmp", ".other.12345678.tmp"]
    for name in kept:
        (tmp_path / name).write_text("kept")
    (tmp_path / ".out.00000000.tmp").symlink_to("/nowhere")
    remove_leftovers(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.is_symlink()) == sorted(kept)
