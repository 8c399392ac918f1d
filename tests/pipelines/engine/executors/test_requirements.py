"""Machines that join late must have the programs and files of the driver's machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from codectok.pipelines.engine.executors.requirements import Requirements
from codectok.pipelines.engine.planning.plan import load_plan
from codectok.storage import LocalStorage
from tests.helpers.jobs import run, shard_job


@pytest.fixture
def requirements(corpus: Path, tmp_path: Path) -> Requirements:
    """Of a job over two datasets, whose second one can be hidden."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "z.wav").write_bytes((corpus / "a.wav").read_bytes())
    storage = LocalStorage(tmp_path / "out")
    run(shard_job(), tmp_path / "other", storage.path)
    plan = load_plan(storage, {})
    assert plan is not None
    return Requirements.of(storage, plan)


def test_equal_machine_fulfils_them(requirements: Requirements) -> None:
    assert requirements.problem() is None
    assert [source.path for source in requirements.sources] == ["z.wav"]


def test_machine_without_the_sources_is_unfit(requirements: Requirements, tmp_path: Path) -> None:
    (tmp_path / "other").rename(tmp_path / "hidden")
    assert "it cannot read" in str(requirements.problem())


def test_machine_with_another_output_is_unfit(requirements: Requirements, tmp_path: Path) -> None:
    assert "it does not see the output" in str(replace(requirements, url=str(tmp_path / "nowhere")).problem())
    (tmp_path / "out" / "_codectok" / "plan.json").write_text("{}")
    assert "give an output that all machines share" in str(requirements.problem())


def test_machine_with_other_programs_is_unfit(requirements: Requirements) -> None:
    facts = replace(requirements.facts, torch="1.0")
    assert "it has torch" in str(replace(requirements, facts=facts).problem())
