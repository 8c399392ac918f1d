"""Verifiers by job: codectok's jobs name one each, and `verify` says if a job has none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from codectok.cli.main import app
from codectok.errors import VerificationError
from codectok.pipelines import (
    NullProgress,
    OutputVerifier,
    RunOptions,
    TableJob,
    Unit,
    UnitOutput,
    decoded_clips,
    run_job,
    verify_output,
)
from codectok.pipelines.engine.output.records import UnitRecord
from codectok.pipelines.verify.verifiers import JOBS, verifier_of
from codectok.storage import open_storage
from tests.helpers.records import update_record

SCHEMA = pa.schema([("source", pa.string()), ("peak", pa.float32())])
LOCAL = RunOptions(engine="local", max_rejects=1.0)


def peaks(unit: Unit, output: UnitOutput):
    for clip, samples in decoded_clips(unit, output, sample_rate=24_000):
        output.keep(clip.dataset, len(samples) / 24_000)
        yield {"source": clip.source, "peak": float(np.abs(samples).max())}


class PeaksVerifier(OutputVerifier):
    """Peaks are at most 1."""

    def check(self, record: UnitRecord, name: str) -> None:
        with self.storage.open(name) as file:
            if max(pq.read_table(file)["peak"].to_pylist()) > 1:
                raise VerificationError(f"{name} has a peak above 1.")


@pytest.fixture
def output(corpus: Path, tmp_path: Path) -> Path:
    run_job(TableJob("peaks", peaks, SCHEMA), [str(corpus)], tmp_path / "out", LOCAL, NullProgress())
    return tmp_path / "out"


def test_every_job_names_its_verifier() -> None:
    assert all(verifier_of(job.verb) is job.verifier is not None for job in JOBS)
    assert len({job.verb for job in JOBS}) == len(JOBS)
    # Conversations become the same files as documents.
    forms = [job for job in JOBS if not job.verb.startswith("export chat")]
    assert len({job.verifier for job in forms}) == len(forms)
    assert verifier_of("peaks") is None


def test_job_from_function_counts_and_rejects(output: Path) -> None:
    rows = [row for path in output.glob("part-*.parquet") for row in pq.read_table(path).to_pylist()]
    verified = verify_output(open_storage(output))
    assert verified.rows == len(rows) == 8
    assert {row["source"] for row in rows} >= {"a.wav", "b.flac"}
    summary = json.loads((output / "_codectok" / "summary.json").read_text())
    # The audio of truncated.flac before its damage is a row, the rest a reject.
    assert summary["total"]["inputs"] + 1 == len(rows) + sum(summary["total"]["rejects"].values())
    assert summary["total"]["ignored"] == 1


def test_verify_reports_missing_verifier(output: Path) -> None:
    verified = verify_output(open_storage(output))
    assert (verified.verb, verified.contents) == ("peaks", False)
    result = CliRunner().invoke(app, ["verify", str(output)])
    assert result.exit_code == 0
    assert "hashes, records and rejects only" in " ".join(result.output.split())
    assert "peaks" in result.output


def test_verify_takes_the_verifier_of_another_job(output: Path) -> None:
    assert verify_output(output, verifier=PeaksVerifier).contents
    part = output / "part-000000.parquet"
    pq.write_table(pa.table({"source": ["a.wav"], "peak": [2.0]}, SCHEMA), part)
    update_record(output, part)
    with pytest.raises(VerificationError, match="peak above 1"):
        verify_output(open_storage(output), verifier=PeaksVerifier)
