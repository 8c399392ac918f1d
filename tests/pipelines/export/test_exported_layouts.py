"""Documents in the token layouts of others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from codectok import InputError
from codectok.exports.choices import TooLong
from codectok.exports.sequences.packing import PackingOptions
from codectok.exports.sequences.parquet import SequencesMetadata
from codectok.pipelines.export.documents import MegatronJob, SequencesJob
from codectok.pipelines.verify.output import verify_output
from codectok.storage import open_storage
from codectok.tokens.layouts.layout import TokenLayout
from codectok.tokens.layouts.loading import load_layout
from codectok.tokens.layouts.reading import read_ids
from codectok.tokens.table import TokenRow
from tests.helpers.exports import OFFSET, export, options, sequences
from tests.helpers.megatron import read_indexed
from tests.helpers.tables import metadata, write

DELAYED = TokenLayout(
    name="late",
    kind="template",
    token="<{codebook}:{code}>",
    order="delayed",
    delay=2,
    special_tokens=("<b>", "<e>", "<p>"),
    begin_audio="<b>",
    end_audio="<e>",
    padding="<p>",
)


@pytest.fixture
def frames(tmp_path: Path) -> tuple[str, list[np.ndarray]]:
    """A table of three codebooks, and its codes."""
    generator = np.random.default_rng(0)
    codes = [generator.integers(16, size=(3 + n, 3)) for n in range(5)]
    rows = [TokenRow(f"r{n}", "a.wav", "d", n, 1.0, 24_000, one, "words") for n, one in enumerate(codes)]
    described = metadata(16, 3).model_copy(update={"n_residuals": 3})
    write(tmp_path / "tokens" / "part-000000.parquet", rows, described)
    return str(tmp_path / "tokens"), codes


@pytest.mark.parametrize("order", ["flat", "delayed", "parallel"])
def test_sequences_are_read_back(order: str, frames: tuple[str, list[np.ndarray]], tmp_path: Path) -> None:
    table, codes = frames
    layout = DELAYED.model_copy(update={"order": order})
    job = SequencesJob(options(layout=layout), [table])
    export(job, tmp_path / "out")
    assert verify_output(open_storage(tmp_path / "out")).rows == len(codes)
    for row, expected in zip(sequences(tmp_path / "out"), codes, strict=True):
        np.testing.assert_array_equal(read_ids(row["input_ids"][:-1], job.vocabulary, strict=True).codes, expected)
    stored = pq.read_schema(tmp_path / "out" / "part-000000.parquet").metadata[b"codectok"]
    described = SequencesMetadata.model_validate_json(stored)
    assert described.layout is not None
    assert (described.layout.name, described.layout.sha256) == ("late", layout.sha256)
    plan = (tmp_path / "out" / "_codectok" / "plan.json").read_text()
    assert f"late {layout.sha256}" in plan
    with pytest.raises(InputError, match="layout"):
        export(SequencesJob(options(), [table]), tmp_path / "out")


def test_megatron_holds_ids_of_layout(frames: tuple[str, list[np.ndarray]], tmp_path: Path) -> None:
    table, codes = frames
    job = MegatronJob(options(layout=DELAYED), [table])
    export(job, tmp_path / "out")
    parts = sorted((tmp_path / "out").glob("*.idx"))
    described = SequencesMetadata.model_validate_json(
        pq.read_schema(parts[0].with_suffix(".parquet")).metadata[b"codectok"]
    )
    assert described.layout is not None
    assert (described.format, described.layout.sha256) == ("codectok.documents", DELAYED.sha256)
    found = [document for part in parts for document in read_indexed(part.with_suffix("")).sequences]
    begin, end = (job.vocabulary.id_of(token) for token in ("<b>", "<e>"))
    for document, expected in zip(found, codes, strict=True):
        assert document == [begin, *job.vocabulary.ids_of(expected).tolist(), end, 0]


def test_default_layout_is_not_recorded(table: Path, tmp_path: Path) -> None:
    """Plans and files are those of earlier versions."""
    export(SequencesJob(options(layout=load_layout("unitts")), [str(table)]), tmp_path / "out")
    stored = pq.read_schema(tmp_path / "out" / "part-000000.parquet").metadata[b"codectok"]
    assert "layout" not in json.loads(stored)
    assert '"layout"' not in (tmp_path / "out" / "_codectok" / "plan.json").read_text()


@pytest.mark.parametrize("too_long", [TooLong.TRUNCATE, TooLong.SPLIT])
def test_delayed_audio_is_not_cut(too_long: TooLong) -> None:
    with pytest.raises(InputError, match="codebooks are delayed"):
        options(layout=DELAYED, packing=PackingOptions(length=20, too_long=too_long))


def test_layout_that_does_not_fit_is_refused(frames: tuple[str, list[np.ndarray]]) -> None:
    with pytest.raises(InputError, match="all codebooks alike"):
        SequencesJob(options(layout=load_layout("llasa"), offset=OFFSET), [frames[0]])
