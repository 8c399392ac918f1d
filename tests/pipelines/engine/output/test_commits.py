"""Commits of several units at a time in an object store."""

from __future__ import annotations

import threading
import time

import pytest

from codectok.errors import CodectokError
from codectok.pipelines.engine.output.commits import STORE_COMMITS, open_commits
from codectok.pipelines.engine.output.folder import MadeUnit, OutputFolder
from codectok.pipelines.engine.output.records import OutputFile, UnitRecord
from codectok.pipelines.engine.output.unit_files import record_name
from codectok.storage import RemoteStorage


class SlowFolder(OutputFolder):
    """Its commits take a moment, the first the longest; counts the ones that run at the same time."""

    def __init__(self, url: str) -> None:
        super().__init__(RemoteStorage(url), "whole")
        self.lock = threading.Lock()
        self.running = self.most = 0

    def commit(self, record: UnitRecord, attempt: str) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.2 if record.unit == 0 else 0.01)
        try:
            super().commit(record, attempt)
        finally:
            with self.lock:
                self.running -= 1


def made(unit: int, files: tuple[OutputFile, ...] = ()) -> MadeUnit:
    return MadeUnit(UnitRecord(unit=unit, split="train", counts={}, histograms={}, files=files), {}, "here")


def test_units_are_committed_at_the_same_time_and_yielded_after_their_commit() -> None:
    folder = SlowFolder("memory://commits-at-once")
    yielded = []
    with open_commits(folder) as commits:
        for unit in range(3 * STORE_COMMITS):
            for one in (*commits.committed(), *commits.add(made(unit), folder.attempt(unit, 1))):
                assert folder.storage.read(record_name(one.record.unit))
                yielded.append(one.record.unit)
        yielded += [one.record.unit for one in commits.finish()]
    assert yielded == list(range(3 * STORE_COMMITS))
    assert 8 < folder.most <= STORE_COMMITS


def test_failed_commit_ends_the_job_once_the_others_have_ended() -> None:
    folder = SlowFolder("memory://commits-that-fail")
    lost = OutputFile(name="part-000001.parquet", bytes=1, sha256="")
    with pytest.raises(CodectokError, match="does not find it"), open_commits(folder) as commits:
        for unit in range(8):
            list(commits.add(made(unit, (lost,) if unit == 1 else ()), folder.attempt(unit, 1)))
        list(commits.finish())
    assert folder.running == 0
    assert folder.storage.read(record_name(7))
    with pytest.raises(FileNotFoundError):
        folder.storage.read(record_name(1))
