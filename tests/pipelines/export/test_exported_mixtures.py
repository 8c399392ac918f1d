"""Mixtures by weights: shares hold in every part, or the export fails."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from codectok import CodectokError, InputError
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning import cutting
from codectok.pipelines.engine.planning.preview import preview_job
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.progress import NullProgress
from codectok.pipelines.engine.run import run_job
from codectok.pipelines.export.documents import SequencesJob
from codectok.pipelines.verify.output import verify_output
from codectok.storage import open_storage
from tests.helpers.exports import ROWS, export, options, sequences
from tests.helpers.hooked_jobs import BeforeUnits
from tests.helpers.jobs import LOCAL, digests


def test_mixture_token_shares_follow_weights(
    table: Path, books: Path, tokenizer: Path, tmp_path: Path, any_share: None
) -> None:
    for until in ("first", "last"):
        settings = options(
            tokenizer=str(tokenizer),
            template="tts",
            templates={"sound": "audio"},
            weights={"tokens": 2.0, "sound": 1.0, "books": 3.0},
            until=until,
            part_megabytes=0.006,  # with fewer rows in a part, shares are coarse
        )
        job = SequencesJob(settings, [str(table), f"sound={table}"], [str(books)])
        summary = export(job, tmp_path / until).summary
        assert summary.units > 3
        made = [one for r in sequences(tmp_path / until) for one in zip(r["ids"], r["datasets"], strict=True)]
        assert Counter(name for _, name in made) == {name: counts.rows for name, counts in summary.datasets.items()}
        assert {name for page, name in made if page.startswith("p")} == {"books"}
        verify_output(open_storage(tmp_path / until))
        tokens = {name: counts.codes for name, counts in summary.datasets.items()}
        total = sum(tokens.values())
        assert tokens["tokens"] / total == pytest.approx(2 / 6, abs=0.05)
        assert tokens["sound"] / total == pytest.approx(1 / 6, abs=0.05)
        assert tokens["books"] / total == pytest.approx(3 / 6, abs=0.05)
    # Until "last" every row occurs, some repeatedly; until "first" no row occurs twice.
    names = {until: Counter(r["ids"][0] for r in sequences(tmp_path / until)) for until in ("first", "last")}
    pages = {until: {name: n for name, n in found.items() if name.startswith("p")} for until, found in names.items()}
    assert set(pages["first"].values()) == {1}
    assert len(pages["last"]) == 400
    assert {row.id for row in ROWS} <= names["last"].keys()


@pytest.fixture
def any_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow the small parts of these tests."""
    monkeypatch.setattr(cutting, "LEAST_SHARE", 1)


def mixed(table: Path, text: Path, tokenizer: Path, megabytes: float = 0.002) -> SequencesJob:
    settings = options(
        tokenizer=str(tokenizer), weights={"t": 1.0, "text": 1.0}, until="last", part_megabytes=megabytes
    )
    return SequencesJob(settings, [f"t={table}"], [f"text={text}"])


def test_source_too_small_for_weight_is_refused(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "lonely.jsonl"
    lonely.write_text('{"text": "one row"}\n')
    with pytest.raises(InputError, match=r"source text has 0.0 kB, too little .* \(--part-megabytes 1\)"):
        export(mixed(table, lonely, tokenizer), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="too little"):
        preview_job(job := mixed(table, lonely, tokenizer), job.sources.arguments, tmp_path / "out", LOCAL)
    assert export(mixed(table, lonely, tokenizer, 1.0), tmp_path / "out").summary.units == 1


def test_new_parts_without_weighted_source_are_refused(
    table: Path, books: Path, tokenizer: Path, tmp_path: Path
) -> None:
    tokens, texts = tmp_path / "tokens", tmp_path / "texts"
    tokens.mkdir()
    texts.mkdir()
    shutil.copy(table / "part-000000.parquet", tokens)
    shutil.copy(books, texts / "0.jsonl")
    export(mixed(tokens, texts, tokenizer, 1.0), tmp_path / "out")
    before = digests(tmp_path / "out")
    shutil.copy(table / "part-000001.parquet", tokens)
    extended = replace(LOCAL, extend=True)
    with pytest.raises(InputError, match="source text"):
        export(mixed(tokens, texts, tokenizer, 1.0), tmp_path / "out", extended)
    assert digests(tmp_path / "out") == before
    assert export(mixed(tokens, texts, tokenizer, 1.0), tmp_path / "out").new_units == 0
    shutil.copy(books, texts / "1.jsonl")
    assert export(mixed(tokens, texts, tokenizer, 1.0), tmp_path / "out", extended).new_units == 1
    verify_output(open_storage(tmp_path / "out"))


def test_part_without_documents_of_source_fails(table: Path, tokenizer: Path, tmp_path: Path, any_share: None) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text(
        "".join(json.dumps({"id": f"p{n}", "text": "page" * (not 150 < n < 500)}) + "\n" for n in range(800))
    )
    job = mixed(table, text, tokenizer, 0.008)
    runs = 0

    class CountingJob(BeforeUnits, SequencesJob):
        def before(self, unit: Unit, output: UnitOutput) -> None:
            nonlocal runs
            runs += 1

    job.__class__ = CountingJob
    with pytest.raises(
        CodectokError, match=r"units failed .*no document of the source text \(p\d+: The text is empty\)"
    ) as raised:
        export(job, tmp_path / "out")
    # Running it again would fail again.
    assert "run the same command again" not in str(raised.value)
    n_units = preview_job(job, job.sources.arguments, tmp_path / "out", LOCAL).units
    made = len(list((tmp_path / "out").glob("part-*.parquet")))
    assert 0 < made < n_units == runs


class Notes(NullProgress):
    """Collects messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def note(self, message: str) -> None:
        self.messages.append(message)


@pytest.mark.usefixtures("any_share", "ray_session")
def test_lasting_failure_is_not_retried_by_workers(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"id": f"p{n}", "text": "page" * (n < 150)}) + "\n" for n in range(800)))
    job, notes = mixed(table, text, tokenizer, 0.008), Notes()
    with pytest.raises(CodectokError, match=r"units failed .* without this source\)\.$"):
        run_job(job, job.sources.arguments, tmp_path / "out", RunOptions(engine="ray", workers=2), notes)
    assert any("failed: Part" in message for message in notes.messages)
    assert not any("is tried again" in message for message in notes.messages)
