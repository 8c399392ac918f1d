"""Documents of recordings with several rows, and voices to imitate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codectok import InputError
from codectok.exports.choices import Packing
from codectok.exports.sequences.items import Voice
from codectok.exports.sequences.packing import PackingOptions
from codectok.pipelines.export import row_reader
from codectok.pipelines.export.documents import SequencesJob
from codectok.pipelines.export.voices import voices_of_speakers
from codectok.pipelines.verify.output import verify_output
from codectok.storage import open_storage
from codectok.tokens.table import TokenRow
from tests.helpers.exports import (
    CODEBOOK,
    INNER_BEGIN,
    INNER_END,
    OFFSET,
    ROWS,
    SMALL_PARTS,
    export,
    options,
    sequences,
    write_parts,
)
from tests.helpers.jobs import LOCAL, digests, rejects
from tests.helpers.tables import metadata, write


def interleaved(table: Path, tokenizer: Path, output: Path, **values: Any) -> list[dict[str, Any]]:
    settings = options(template="interleaved", tokenizer=str(tokenizer), **values)
    export(SequencesJob(settings, [str(table)]), output)
    return sequences(output)


def test_recordings_do_not_depend_on_parts(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    made = {
        megabytes: interleaved(table, tokenizer, tmp_path / str(megabytes), part_megabytes=megabytes)
        for megabytes in (SMALL_PARTS, 100.0)
    }
    assert made[SMALL_PARTS] == made[100.0]
    # Every tenth row has no text and is rejected; it is the last row of its recording.
    for found, n in zip(made[100.0], range(0, 83, 5), strict=True):
        wanted = [row for row in ROWS[n : n + 5] if row.text]
        assert found["ids"] == [wanted[0].id]
        assert found["input_ids"].count(INNER_BEGIN) == found["input_ids"].count(INNER_END) == len(wanted)
    assert [r["source"] for r in rejects(tmp_path / "100.0")] == [row.id for row in ROWS if not row.text]


@pytest.mark.parametrize("rows_of_a_file", [7, 2, 1])
def test_recording_across_files_is_one_document(
    rows_of_a_file: int, table: Path, tokenizer: Path, tmp_path: Path
) -> None:
    cut = write_parts(tmp_path / "tokens", rows_of_a_file)
    wanted = interleaved(table, tokenizer, tmp_path / "whole")
    for megabytes in (0.002, 100.0):
        found = interleaved(cut, tokenizer, tmp_path / str(megabytes), part_megabytes=megabytes)
        assert found == wanted
        verify_output(open_storage(tmp_path / str(megabytes)))


def test_long_recordings_are_cut_between_rows(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    found = interleaved(table, tokenizer, tmp_path / "out", packing=PackingOptions(Packing.NONE, 200))
    codes = [code for r in found for code in r["input_ids"] if OFFSET <= code < OFFSET + CODEBOOK]
    assert codes == [OFFSET + code for row in ROWS if row.text for code in row.codes[:, 0].tolist()]
    assert max(len(r["input_ids"]) for r in found) <= 200
    assert not [r for r in rejects(tmp_path / "out") if r["reason"] == "too_long"]


def test_new_files_do_not_change_finished_recordings(tokenizer: Path, tmp_path: Path) -> None:
    tokens = write_parts(tmp_path / "tokens", 7)
    last = tokens / "part-000011.parquet"
    last.rename(tmp_path / "later.parquet")
    settings = options(template="interleaved", tokenizer=str(tokenizer))
    export(SequencesJob(settings, [str(tokens)]), tmp_path / "out")
    before = digests(tmp_path / "out")
    (tmp_path / "later.parquet").rename(last)
    export(SequencesJob(settings, [str(tokens)]), tmp_path / "out", replace(LOCAL, extend=True))
    after = digests(tmp_path / "out")
    assert {name: after[name] for name in before if name.startswith("part-")} == {
        name: hashed for name, hashed in before.items() if name.startswith("part-")
    }
    # The recording of rows 75 to 79 continues in the new file, as a separate document.
    assert [r["ids"] for r in sequences(tmp_path / "out")][-3:] == [["c075"], ["c077"], ["c080"]]


def test_voice_is_another_clip_of_speaker_or_one_row(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    by_id = {row.id: row for row in ROWS}
    codes = {tuple((OFFSET + row.codes[:, 0]).tolist()): row for row in ROWS}
    for voice in ("speaker", "c004"):
        settings = options(template="tts", tokenizer=str(tokenizer), voice=voice)
        report = export(SequencesJob(settings, [str(table)]), tmp_path / voice)
        found = sequences(tmp_path / voice)
        assert len(found) == report.summary.total.rows > 40
        assert voice not in {r["ids"][0] for r in found}  # it would imitate itself
        for r in found:
            before = by_id[r["ids"][0]]
            assert r["input_ids"][0] == INNER_BEGIN
            imitated = codes[tuple(r["input_ids"][1 : r["input_ids"].index(INNER_END)])]
            if voice == "speaker":
                assert imitated.speaker == before.speaker
                assert imitated.id != before.id
            else:
                assert imitated.id == "c004"
    messages = {r["source"]: r["message"] for name in ("speaker", "c004") for r in rejects(tmp_path / name)}
    assert messages["c007"] == "The row c007 has no speaker."
    assert messages["c004"] == "The row c004 is the voice itself."
    with pytest.raises(InputError, match="There is no row missing"):
        SequencesJob(options(template="tts", tokenizer=str(tokenizer), voice="missing"), [str(table)])
    with pytest.raises(InputError, match="the template has none"):
        SequencesJob(options(voice="speaker"), [str(table)])


def test_voices_of_part_are_collected_once(
    table: Path, books: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if a mixture repeats its table, since collecting voices reads all of it."""
    collected: list[list[np.ndarray]] = []

    def counted(rows: Iterable[TokenRow], code_type: type[np.unsignedinteger]) -> Voice:
        voice = voices_of_speakers(rows, code_type)
        collected.append(used := [])

        def recorded(row: TokenRow) -> np.ndarray:
            used.append(voice(row))
            return used[-1]

        return recorded

    monkeypatch.setattr(row_reader, "voices_of_speakers", counted)
    settings = options(
        template="tts", tokenizer=str(tokenizer), voice="speaker", part_megabytes=1.0, until="last",
        weights={"t": 20.0, "books": 1.0},
    )  # fmt: skip
    job = SequencesJob(settings, [f"t={table}"], [str(books)])
    collected.clear()  # the checks in __init__ collect voices of no rows
    assert export(job, tmp_path / "out").summary.datasets["t"].rows > 3 * len(ROWS)
    (codes,) = collected
    assert {found.dtype for found in codes} == {np.dtype(np.uint16)}


def test_voice_from_another_table(table: Path, tokenizer: Path, tmp_path: Path) -> None:
    other = replace(ROWS[3], id="c000", dataset="voices")
    write(tmp_path / "voices" / "part-000000.parquet", [other], metadata(CODEBOOK, 1))
    settings = options(template="tts", tokenizer=str(tokenizer), voice=f"{tmp_path / 'voices'}#c000")
    export(SequencesJob(settings, [str(table)]), tmp_path / "out")
    found = sequences(tmp_path / "out")
    assert [r["ids"] for r in found] == [[row.id] for row in ROWS if row.text]
    for r in found:
        assert r["input_ids"][1 : r["input_ids"].index(INNER_END)] == (OFFSET + other.codes[:, 0]).tolist()
    with pytest.raises(InputError, match=r"no row c001 in .*voices"):
        SequencesJob(replace(settings, voice=f"{tmp_path / 'voices'}#c001"), [str(table)])


def test_speakers_of_two_datasets_are_distinct(tokenizer: Path, tmp_path: Path) -> None:
    """One table merges datasets that number their speakers from 0."""
    made = [replace(row, text="words", speaker="0", dataset="ab"[n % 2]) for n, row in enumerate(ROWS[:8])]
    write(tmp_path / "tokens" / "part-000000.parquet", made, metadata(CODEBOOK, 1))
    settings = options(template="tts", tokenizer=str(tokenizer), voice="speaker")
    export(SequencesJob(settings, [str(tmp_path / "tokens")]), tmp_path / "out")
    codes = {tuple((OFFSET + row.codes[:, 0]).tolist()): row for row in made}
    by_id = {row.id: row for row in made}
    found = sequences(tmp_path / "out")
    assert len(found) == len(made)
    for r in found:
        imitated = codes[tuple(r["input_ids"][1 : r["input_ids"].index(INNER_END)])]
        assert imitated.dataset == by_id[r["ids"][0]].dataset


@pytest.mark.parametrize("rows_of_a_file", [7, 2])
def test_patterns_do_not_depend_on_parts_and_files(
    rows_of_a_file: int, table: Path, tokenizer: Path, tmp_path: Path
) -> None:
    """A pattern continues in the next file, and seeds decide it by the first row alone."""
    patterns = {"template": "AT:1,TAA:2", "tokenizer": str(tokenizer), "seed": 3, "part_megabytes": 100.0}
    other = write_parts(tmp_path / "tokens", rows_of_a_file)
    for source, name in ((table, "whole"), (other, "files")):
        export(SequencesJob(options(**patterns), [str(source)]), tmp_path / name)
        verify_output(tmp_path / name)
    export(SequencesJob(options(**{**patterns, "part_megabytes": SMALL_PARTS}), [str(table)]), tmp_path / "parts")
    assert sequences(tmp_path / "whole") == sequences(tmp_path / "files") == sequences(tmp_path / "parts")
    with pytest.raises(InputError, match="seed was 3 and is 4"):
        export(SequencesJob(options(**{**patterns, "seed": 4}), [str(table)]), tmp_path / "whole")
    equal = {**patterns, "template": "TAA:4,AT:2"}
    export(SequencesJob(options(**equal), [str(table)]), tmp_path / "whole")


def test_options_of_patterns_without_a_pattern_are_refused(table: Path, tokenizer: Path) -> None:
    for option, value in (("switch", "<|sil|>"), ("seed", 0)):
        with pytest.raises(InputError, match=rf"--{option}.* is for patterns"):
            SequencesJob(options(template="tts", tokenizer=str(tokenizer), **{option: value}), [str(table)])
    for share in ("0", "."):
        with pytest.raises(InputError, match=f"share of AT must be a number above 0, not '{share}'"):
            SequencesJob(options(template=f"AT:{share}", tokenizer=str(tokenizer)), [str(table)])
    with pytest.raises(InputError, match="eos ends documents"):
        SequencesJob(options(template="AT", tokenizer=str(tokenizer), switch="eos"), [str(table)])
