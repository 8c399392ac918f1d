"""Output of the console without a terminal."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from codectok.cli import console


def test_progress_prints_line_at_each_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_LINE_SECONDS", 0.05)
    with console.progress(4, "tokenize") as report:
        time.sleep(0.3)
        report.advance("1 of 4 units")
        time.sleep(0.3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tokenize: 0%, 0.")
    assert "left" not in lines[0]
    assert lines[-1].startswith("tokenize: 25%, 0.")
    assert lines[-1].endswith("left, 1 of 4 units")


def test_progress_without_lines_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_LINE_SECONDS", 0.01)
    with console.progress(4, "train", lines=False):
        time.sleep(0.1)
    assert capsys.readouterr().out == ""


def test_control_characters_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    console.warn("Rejected: a\nb\r\x1b[31m\x85 [c] \u00fc \U0001f600: no text.")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "Warning: Rejected: a\\nb\\r\\x1b[31m\\x85 [c] \u00fc \U0001f600: no text."
    console.facts_table("title", {"path": "a\nb"})
    assert "a\\nb" in capsys.readouterr().out


def test_closed_output_pipe_prints_no_error() -> None:
    command = [sys.executable, "-m", "codectok", "tokenize", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
