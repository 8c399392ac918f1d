"""Plans of earlier versions: their tables are verified, and other jobs do not continue them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from codectok.errors import InputError
from codectok.pipelines.engine.output.folder import unit_hash
from codectok.pipelines.engine.planning.plan import load_plan
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.source import ROW_FIELDS, Source, row_of
from codectok.storage import open_storage
from tests.helpers.audio import tone
from tests.helpers.jobs import run, shard_job


def test_hashes_of_units_without_later_fields_stay_the_same(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(2, 16_000), 16_000)
    run(shard_job(), tmp_path / "a.wav", tmp_path / "out")
    plan = load_plan(open_storage(tmp_path / "out"), {})
    assert plan is not None
    header = plan.header.model_copy(update={"verb": "tokenize", "bytes_version": 2, "options": {"codec": "x"}})
    unit = Unit(0, (Source("in", "/in", "a.wav", "audio", 64044),), "train")
    # Stored in tables before sources had channels and further labels.
    assert unit_hash(header, unit) == "166f06a1848afe943cc6c5d5d23cdceea40e90e08d4200a17dfcf81909ba3058"
    assert len(row_of(unit.sources[0])) == len(ROW_FIELDS)


def test_plan_of_another_version_is_refused_without_its_missing_options(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(2, 16_000), 16_000)
    run(shard_job(), tmp_path / "a.wav", tmp_path / "out")
    path = tmp_path / "out" / "_codectok" / "plan.json"
    plan = json.loads(path.read_text())
    plan["bytes_version"] -= 1
    del plan["options"]["scale"]
    path.write_text(json.dumps(plan))
    with pytest.raises(InputError, match="another job: another version of codectok wrote it; choose another folder"):
        run(shard_job(), tmp_path / "a.wav", tmp_path / "out")
