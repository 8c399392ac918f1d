"""Drives a listening test: `codectok listen` in a process, and its page in a browser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GRADE_KEYS = {"speech_clarity": "QWERT", "background_clarity": "ASDFG"}


@dataclass
class Server:
    """A running `codectok listen`."""

    process: subprocess.Popen[str]
    listeners: str
    results: str

    @property
    def port(self) -> str:
        return self.listeners.rstrip("/").rpartition(":")[2]

    def stop(self) -> str:
        self.process.send_signal(signal.SIGINT)
        output, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, output + errors
        return output


@contextmanager
def listening(*arguments: object) -> Iterator[Server]:
    command = [sys.executable, "-m", "codectok", "listen", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)
    try:
        assert process.stdout is not None
        found = {}
        for line in process.stdout:
            label, _, address = line.rpartition(": ")
            found[label.split(" ")[0].strip(",")] = address.strip()
            if line.startswith("Ctrl-C"):
                break
        if "Listeners" not in found:
            pytest.fail(f"The server did not start: {process.communicate()}")
        yield Server(process, found["Listeners"], found["Results"])
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


class Listener:
    """Drives the page, and remembers each rating."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        self.expected: dict[tuple[str, str, str], int] = {}
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def wait(self) -> None:
        self.page.wait_for_selector("#trial:not([hidden]) #play:not([disabled])")

    def shown(self) -> Any:
        return self.page.evaluate("() => ({id: page.id, kind: page.kind, stimuli: page.stimuli.map(one => one.id)})")

    def grade(self, number: int, scale: str, value: int) -> None:
        """Choose a version and rate it, by keyboard."""
        shown = self.shown()
        self.page.keyboard.press(str(number + 1))
        self.page.keyboard.press(GRADE_KEYS[scale][value - 1].lower())
        self.expected[shown["id"], shown["stimuli"][number], scale] = value

    def grade_all(self, start: int) -> None:
        for number in range(len(self.shown()["stimuli"])):
            for scale in GRADE_KEYS:
                self.grade(number, scale, 1 + (start + number) % 5)

    def slide_all(self, values: list[int]) -> None:
        """Rate by keyboard and mouse in turn."""
        shown = self.shown()
        for number, value in enumerate(values):
            if number % 2:
                self.page.locator("#stimuli input").nth(number).fill(str(value))
            else:
                self.page.keyboard.press(str(number + 1))
                keys = ["PageUp" if value > 50 else "PageDown"] * (abs(value - 50) // 10)
                keys += ["ArrowUp" if value > 50 else "ArrowDown"] * (abs(value - 50) % 10)
                for key in keys:
                    self.page.keyboard.press(key)
            self.expected[shown["id"], shown["stimuli"][number], "mushra"] = value

    def ready(self) -> None:
        self.page.wait_for_selector("#next:not([disabled])")

    def next(self) -> None:
        self.ready()
        before = self.shown()["id"]
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector(f"#trial[hidden], #trial[data-page]:not([data-page='{before}'])", state="attached")

    @property
    def state(self) -> str:
        text: str = self.page.inner_text("#state")
        return text
