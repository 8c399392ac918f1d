"""Rows about times and machines."""

from __future__ import annotations

from codectok.cli.times import machine_rows
from codectok.pipelines.engine.progress import Machine


def machine(number: int, ffmpeg: str = "yes") -> Machine:
    return Machine(f"node-{number}", 8, 0 if number else 1, {"codectok": "1.0 (ab)", "ffmpeg": ffmpeg})


def test_equal_machines_share_a_row() -> None:
    assert machine_rows([machine(0), machine(1), machine(2)]) == [
        ["node-0", "8", "1", "codectok 1.0 (ab), ffmpeg yes"],
        ["node-1, node-2", "8", "0", "codectok 1.0 (ab), ffmpeg yes"],
    ]


def test_many_machines_are_counted() -> None:
    assert [row[0] for row in machine_rows([machine(number) for number in range(1001)])] == ["node-0", "1,000 machines"]
