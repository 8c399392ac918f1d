"""Files of the report of an evaluation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codectok.errors import InputError
from codectok.evaluation.report_files import ReportFiles

KILLED = """
import os, signal, sys
from pathlib import Path
from codectok.evaluation import report_files

def kill(*arguments): os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "while leftovers are removed":
    remove = report_files.remove_leftovers
    report_files.remove_leftovers = lambda path: remove(path) if path.suffix == ".json" else (remove(path), kill())
files = report_files.ReportFiles(Path(sys.argv[1]))
with files.writing() as writer:
    writer.text = "{}"
    if sys.argv[2] == "between the two":
        write = report_files.write_text
        report_files.write_text = lambda path, text: (write(path, text), kill())
"""


def kill_while_writing(report: Path, moment: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(report), moment], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL


def test_report_that_is_killed_twice_is_written_again(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    kill_while_writing(report, "between the two")
    assert [path.name for path in tmp_path.glob("report.json*")] == ["report.json"]
    kill_while_writing(report, "while leftovers are removed")
    with ReportFiles(report).writing() as writer:
        writer.text = "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.jsonl"]
    with pytest.raises(InputError, match="already exists"):
        ReportFiles(report)
