"""Output of the console without a terminal."""

from __future__ import annotations

import io
import subprocess
import sys
import time

import pytest
from rich.console import Console

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


@pytest.mark.parametrize("name", ["tok[final]/t.parquet", r"x\[/empty].wav", "a [/] b", ":bomb: [bold]", "end\\"])
def test_names_with_markup_are_printed_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.say(name)
    console.warn(name)
    console.fail(name)
    console.facts_table(f"facts of {name}", {name: "value", "name": name})
    console.rows_table(f"rows of {name}", (name, "name"), [("row", name), (name, 0)])
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == name
    assert shown.err.splitlines() == [f"Warning: {name}", f"Error: {name}"]
    assert shown.out.count(name) == 8


def test_progress_bar_shows_names_with_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=output, force_terminal=True, width=120))
    with console.progress(1, "encode [all]") as report:
        report.advance(r"x\[/empty].wav")
    assert "encode [all]" in output.getvalue()
    assert r"x\[/empty].wav" in output.getvalue()


def test_closed_output_pipe_prints_no_error() -> None:
    command = [sys.executable, "-m", "codectok", "tokenize", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1
