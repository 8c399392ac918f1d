"""Job `export codes`: the forms of other programs, which `import codes` reads back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from codectok.errors import VerificationError
from codectok.exports.choices import CodesForm
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.export.codes import CodesJob, CodesOptions
from codectok.pipelines.imports.rows import ImportedRows
from codectok.pipelines.verify.output import verify_output
from codectok.sources.listing.arguments import parse_arguments
from codectok.sources.listing.ordering import ordered_sources
from codectok.sources.listing.sources import list_sources
from codectok.tokens.imports.rows import FieldNames
from codectok.tokens.imports.shapes import CodeForm
from codectok.tokens.table import TokenRow
from tests.helpers.jobs import LOCAL, digests
from tests.helpers.ranges import KINDS
from tests.helpers.records import update_record
from tests.helpers.tables import metadata, rows, write


def imported(folder: Path, n_codebooks: int) -> list[TokenRow]:
    listing = list_sources(
        *parse_arguments([str(folder)], KINDS),
        KINDS,
        reads=lambda argument, path, kind: kind in KINDS or path.endswith(".npy"),
    )
    reader = ImportedRows(metadata(64, n_codebooks), CodeForm(n_codebooks, 64), FieldNames())
    found = [one.row for one in reader.of_unit(Unit(0, tuple(ordered_sources(listing))))]
    assert all(isinstance(row, TokenRow) for row in found)
    return [row for row in found if isinstance(row, TokenRow)]


@pytest.mark.parametrize("n_codebooks", [1, 2])
@pytest.mark.parametrize("form", list(CodesForm))
def test_exported_codes_are_read_back(form: CodesForm, n_codebooks: int, tmp_path: Path) -> None:
    made = rows(60, 64, n_codebooks)
    write(tmp_path / "tokens" / "part-000000.parquet", made, metadata(64, n_codebooks))
    outputs = []
    for name, limits in (("whole", ()), ("parts", (1, 1))):
        for limit in (*limits, None):
            job = CodesJob(CodesOptions(form, 0.002), [str(tmp_path / "tokens")])
            report = run_job(job, job.sources.arguments, tmp_path / name, replace(LOCAL, limit=limit))
        assert report.summary.units > 2
        outputs.append(digests(tmp_path / name))
    assert outputs[0] == outputs[1]
    assert verify_output(tmp_path / "whole").rows == len(made)
    found = imported(tmp_path / "whole", n_codebooks)
    assert sorted(row.codes.tolist() for row in found) == sorted(row.codes.tolist() for row in made)
    if form != CodesForm.NPY:
        assert {row.id: (row.codes.tolist(), row.text) for row in found} == {
            row.id: (row.codes.tolist(), row.text) for row in made
        }


@pytest.mark.parametrize("form", list(CodesForm))
def test_verify_finds_missing_codes(form: CodesForm, tmp_path: Path) -> None:
    write(tmp_path / "tokens" / "part-000000.parquet", rows(5, 64, 1), metadata(64, 1))
    job = CodesJob(CodesOptions(form), [str(tmp_path / "tokens")])
    run_job(job, job.sources.arguments, tmp_path / "out", LOCAL)
    (path,) = (tmp_path / "out").glob("part-*")
    if form == CodesForm.NPY:
        path = sorted(path.iterdir())[-1]
        np.save(path, np.load(path)[:-1])
    elif form == CodesForm.JSONL:
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    else:
        pq.write_table(pq.read_table(path).slice(1), path)
    update_record(tmp_path / "out", path)
    with pytest.raises(VerificationError, match="record says"):
        verify_output(tmp_path / "out")
