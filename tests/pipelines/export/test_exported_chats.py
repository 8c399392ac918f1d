"""`export chat`: conversations join rows of tables, exactly once, with deterministic bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from codectok import CodectokError, InputError
from codectok.exports.choices import AudioKey, Loss, Packing, TooLong
from codectok.exports.sequences.packing import PackingOptions
from codectok.exports.sequences.text_tokenizer import TextTokenizer
from codectok.pipelines.engine.job import RunUnit, WorkerContext
from codectok.pipelines.engine.options import RunOptions
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.export import chat
from codectok.pipelines.export.chat import ChatDocuments, ChatMegatronJob, ChatSequencesJob
from codectok.pipelines.verify.output import verify_output
from codectok.storage import open_storage
from tests.helpers.command_line import assert_refused, codectok
from tests.helpers.conversations import JOBS, TALKS, asked, export, ids_of, megatron_sequences, settings, write_talks
from tests.helpers.exports import BEGIN, CODEBOOK, END, INNER_BEGIN, INNER_END, OFFSET, ROWS, sequences
from tests.helpers.jobs import LOCAL, digests, rejects
from tests.helpers.tables import metadata, write


def test_conversations_become_sequences_with_labels(instruct: Path, talks: Path, table: Path, tmp_path: Path) -> None:
    report = export(ChatSequencesJob(settings(instruct), [str(talks)], [str(table)]), tmp_path / "out")
    assert report.summary.units > 2
    found = sequences(tmp_path / "out")
    assert [row["ids"] for row in found] == [[talk["id"]] for talk in TALKS]
    tokenizer = TextTokenizer(instruct).wrapped

    def text(string: str) -> list[int]:
        return list(tokenizer(string, add_special_tokens=False)["input_ids"])

    for number, row in enumerate(found):
        begin = text("<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n")
        prompt = [*begin, INNER_BEGIN, *ids_of(f"c{number:03d}"), INNER_END]
        prompt += text("say<|im_end|>\n<|im_start|>assistant\n")
        answer = [*text("yes"), BEGIN, *ids_of(f"c{number * 7 % 83:03d}"), END, *text("<|im_end|>")]
        assert row["input_ids"] == [*prompt, *answer, *text("\n")]
        assert row["labels"] == [*[-100] * len(prompt), *answer, -100]
        assert row["position_ids"] == list(range(len(row["input_ids"])))
        assert row["lengths"] == [len(row["input_ids"])]
    assert verify_output(open_storage(tmp_path / "out")).rows == len(TALKS)


def test_audio_is_named_by_source(instruct: Path, tmp_path: Path) -> None:
    rows = [replace(row, source=f"{row.id}.wav") for row in ROWS[:5]]
    write(tmp_path / "tokens" / "part-000000.parquet", rows, metadata(CODEBOOK, 1))
    path = write_talks(tmp_path / "talks.jsonl", [asked("c000.wav", "tokens#c004.wav")])
    job = ChatSequencesJob(settings(instruct, key=AudioKey.SOURCE), [str(path)], [str(tmp_path / "tokens")])
    export(job, tmp_path / "out")
    (row,) = sequences(tmp_path / "out")
    audio = [INNER_BEGIN, *ids_of("c000"), INNER_END, BEGIN, *ids_of("c004"), END]
    assert [one for one in row["input_ids"] if one >= OFFSET] == audio


def test_megatron_has_the_same_ids_and_mask(instruct: Path, talks: Path, table: Path, tmp_path: Path) -> None:
    packed = settings(instruct, packing=PackingOptions(Packing.FIRST_FIT, 300))
    for make in JOBS:
        export(make(packed, [str(talks)], [str(table)]), tmp_path / make.__name__)
        verify_output(open_storage(tmp_path / make.__name__))
    rows = sequences(tmp_path / "ChatSequencesJob")
    ids, masks = (megatron_sequences(tmp_path / "ChatMegatronJob", end) for end in ("", "_loss_mask"))
    assert ids == [row["input_ids"] for row in rows]
    assert masks == [[int(label != -100) for label in row["labels"]] for row in rows]
    assert max(len(row["lengths"]) for row in rows) > 1
    lists = [
        pq.read_table(path)["ids"].to_pylist() for path in sorted((tmp_path / "ChatMegatronJob").glob("*.parquet"))
    ]
    clips = sorted((ids for part in lists for ids in part), key=lambda ids: int(ids[0][1:]))
    assert clips == [[f"t{n}", f"c{n:03d}", f"c{n * 7 % 83:03d}"] for n in range(len(TALKS))]


@pytest.mark.parametrize("make", JOBS)
def test_labels_count_in_the_estimate_of_disk_space(
    make: type[ChatSequencesJob | ChatMegatronJob], instruct: Path, talks: Path, table: Path
) -> None:
    with_labels, without = (
        make(settings(instruct, loss=loss), [str(talks)], [str(table)]) for loss in (Loss.ANSWER, None)
    )
    factor = with_labels.output_bytes_per_second / without.output_bytes_per_second
    assert factor == make.output_factor_of_loss > 1


@pytest.mark.parametrize("make", JOBS)
def test_resumed_export_writes_same_bytes(
    make: type[ChatSequencesJob | ChatMegatronJob],
    instruct: Path,
    talks: Path,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def job() -> ChatDocuments:
        return make(settings(instruct, packing=PackingOptions(Packing.FIRST_FIT, 256)), [str(talks)], [str(table)])

    export(job(), tmp_path / "clean")
    start = make.start

    def stopped(self: Any, context: WorkerContext) -> RunUnit:
        run = start(self, context)

        def run_unit(unit: Unit, output: UnitOutput) -> None:
            run(unit, output)
            if unit.number == 2:
                raise KeyboardInterrupt

        return run_unit

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(make, "start", stopped)
        export(job(), tmp_path / "out")
    (tmp_path / "out" / "_codectok" / "records" / "000001.json").unlink()
    # Few conversations in memory at a time.
    monkeypatch.setattr(chat, "HELD_CONVERSATIONS", 3)
    monkeypatch.setattr(chat, "HELD_CODES", 200)
    report = export(job(), tmp_path / "out")
    assert report.new_units == report.summary.units - 1
    assert digests(tmp_path / "out") == digests(tmp_path / "clean")
    assert export(job(), tmp_path / "out").new_units == 0


@pytest.mark.slow
def test_workers_do_not_change_bytes(
    instruct: Path, talks: Path, table: Path, tmp_path: Path, ray_session: None
) -> None:
    job = ChatSequencesJob(settings(instruct), [str(talks)], [str(table)])
    export(job, tmp_path / "one")
    export(job, tmp_path / "two", RunOptions(engine="ray", workers=2))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def spoken(role: str) -> dict[str, Any]:
    """A turn of UniTTS's dialogues that is not learned."""
    return {"type": role, "cal_loss": False, "content_list": [{"type": "text", "content": "hi"}]}


def test_unusable_conversations_are_rejects(instruct: Path, table: Path, tmp_path: Path) -> None:
    write(tmp_path / "more" / "part-000000.parquet", ROWS[:2], metadata(CODEBOOK, 1))
    bad = [
        asked("none", "c001", "missing"),
        asked("c000", "c003", "ambiguous"),
        asked("c002", "c003", "two answers")["messages"],
        {"id": "silent", "messages": [{"role": "user", "content": "hi"}]},
        {"id": "half", "messages": [{"role": "assistant", "content": "\ud800"}]},
        {"dialog": [spoken("user"), spoken("assistant")]},
    ]
    good = [asked("more#c000", "tokens#c000", "named")]
    job = ChatSequencesJob(
        settings(instruct),
        [str(write_talks(tmp_path / "talks.jsonl", bad + good))],
        [f"tokens={table}", str(tmp_path / "more")],
    )
    export(job, tmp_path / "out", replace(LOCAL, max_rejects=1.0))
    (row,) = sequences(tmp_path / "out")
    assert row["ids"] == ["named"]
    found = rejects(tmp_path / "out")
    place = len(json.dumps(bad[0])) + len(json.dumps(bad[1])) + 2
    assert [(one["source"], one["reason"]) for one in found] == [
        ("missing", "filtered"),
        ("ambiguous", "filtered"),
        (f"talks.jsonl:{place}", "unreadable"),
        ("silent", "filtered"),
        ("half", "filtered"),
        (str(found[5]["source"]), "filtered"),
    ]
    assert found[5]["message"] == "No turn of the conversation is learned."
    assert [str(one["message"]) for one in found[:2]] == [
        "The audio none is in none of the tables.",
        "The audio c000 is in the tables tokens and more; write tokens#ID for one of them.",
    ]
    verify_output(open_storage(tmp_path / "out"))


@pytest.mark.parametrize("make", JOBS)
def test_part_without_conversations_leaves_no_file(
    make: type[ChatSequencesJob | ChatMegatronJob], instruct: Path, table: Path, tmp_path: Path
) -> None:
    bad = [{"id": f"{n}", "messages": [{"role": "user", "content": "hi" * 100}]} for n in range(60)]
    path = write_talks(tmp_path / "talks.jsonl", [*bad, TALKS[0]])
    export(make(settings(instruct), [str(path)], [str(table)]), tmp_path / "out", replace(LOCAL, max_rejects=1.0))
    names = {path.name.partition(".")[0] for path in (tmp_path / "out").glob("part-*")}
    assert len({name.removesuffix("_loss_mask") for name in names}) == 1
    verify_output(open_storage(tmp_path / "out"))


def test_changed_table_is_refused(instruct: Path, talks: Path, tmp_path: Path) -> None:
    described = metadata(CODEBOOK, 1)
    write(tmp_path / "tokens" / "part-000000.parquet", ROWS, described)

    def job() -> ChatSequencesJob:
        return ChatSequencesJob(settings(instruct), [str(talks)], [str(tmp_path / "tokens")])

    export(job(), tmp_path / "out")
    assert export(job(), tmp_path / "out").new_units == 0
    write(tmp_path / "tokens" / "part-000001.parquet", [replace(ROWS[0], id="new")], described)
    with pytest.raises(InputError, match="tables was"):
        export(job(), tmp_path / "out")
    write(tmp_path / "other" / "part-000000.parquet", ROWS, metadata(CODEBOOK, 1, "other"))
    with pytest.raises(InputError, match="differ in codec"):
        ChatSequencesJob(settings(instruct), [str(talks)], [str(tmp_path / "tokens"), str(tmp_path / "other")])


def test_extend_adds_new_conversations(instruct: Path, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "talks"
    folder.mkdir()
    write_talks(folder / "a.jsonl", TALKS[:30])

    def job() -> ChatSequencesJob:
        return ChatSequencesJob(settings(instruct), [str(folder)], [str(table)])

    export(job(), tmp_path / "out")
    before = digests(tmp_path / "out")
    write_talks(folder / "b.jsonl", TALKS[30:])
    export(job(), tmp_path / "out", replace(LOCAL, extend=True))
    after = digests(tmp_path / "out")
    assert all(after[name] == hashed for name, hashed in before.items() if name.startswith("part-"))
    assert [row["ids"][0] for row in sequences(tmp_path / "out")] == [talk["id"] for talk in TALKS]


def test_truncation_keeps_something_to_learn(instruct: Path, talks: Path, table: Path, tmp_path: Path) -> None:
    for too_long in (TooLong.DROP, TooLong.TRUNCATE):
        packing = PackingOptions(Packing.NONE, 110, too_long)
        job = ChatSequencesJob(settings(instruct, packing=packing), [str(talks)], [str(table)])
        report = export(job, tmp_path / too_long, replace(LOCAL, max_rejects=1.0))
        left, found = rejects(tmp_path / too_long), sequences(tmp_path / too_long)
        assert len(left) + len(found) == len(TALKS)
        assert {one["reason"] for one in left} == {"too_long"}
        assert all(len(row["input_ids"]) <= 110 and max(row["labels"]) > 0 for row in found)
        (advice,) = job.reporter.advice(report.summary.datasets)
        assert "of the conversations in talks" in advice
        assert ("--too-long truncate" in advice) == (too_long == TooLong.DROP)
    assert any("than its answers fit into" in str(one["message"]) for one in left)
    assert any(len(row["input_ids"]) > 100 for row in found)
    with pytest.raises(InputError, match="cannot be split"):
        settings(instruct, packing=PackingOptions(Packing.NONE, 110, TooLong.SPLIT))


@pytest.mark.parametrize("make", JOBS)
def test_several_lengths_have_folders(
    make: type[ChatSequencesJob | ChatMegatronJob], instruct: Path, talks: Path, table: Path, tmp_path: Path
) -> None:
    packing = PackingOptions(Packing.NEXT_FIT, 400)
    chosen = settings(instruct, packing=packing, shorter_lengths=(200,))
    export(make(chosen, [str(talks)], [str(table)]), tmp_path / "out")
    assert {path.parent.name for path in (tmp_path / "out").rglob("part-*.parquet")} == {"length-200", "length-400"}
    verify_output(open_storage(tmp_path / "out"))
    with pytest.raises(InputError, match="shorter-lengths"):
        export(make(settings(instruct, packing=packing), [str(talks)], [str(table)]), tmp_path / "out")


def test_advice_suits_conversations(instruct: Path, talks: Path, table: Path, tmp_path: Path) -> None:
    packing = PackingOptions(Packing.NONE, 20)
    job = ChatSequencesJob(settings(instruct, packing=packing), [str(talks)], [str(table)])
    with pytest.raises(CodectokError, match=r"100% of the conversations in talks .* --too-long truncate"):
        export(job, tmp_path / "out")


def test_model_learns_answers_alone(instruct: Path, talks: Path, table: Path, tmp_path: Path) -> None:
    """Labels of the output train a model as they are: the loss is that of the answers, and it falls."""
    from transformers import AutoModelForCausalLM

    from tests.helpers.language_models import qwen2

    packing = PackingOptions(Packing.NEXT_FIT, 512)
    export(ChatSequencesJob(settings(instruct, packing=packing), [str(talks)], [str(table)]), tmp_path / "out")
    row = sequences(tmp_path / "out")[0]
    ids, labels, positions = (torch.tensor([row[name]]) for name in ("input_ids", "labels", "position_ids"))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(qwen2(hidden_size=32, layers=1, rows=OFFSET + 80))
    outputs = model(input_ids=ids, labels=labels, position_ids=positions)
    outputs.logits.retain_grad()
    outputs.loss.backward()
    (reached,) = torch.nonzero(outputs.logits.grad[0].abs().sum(-1), as_tuple=True)
    assert reached.tolist() == (np.flatnonzero(np.array(row["labels"]) != -100) - 1).tolist()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(4):
        loss = model(input_ids=ids, labels=labels, position_ids=positions).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2


def test_command_makes_and_extends_output(instruct: Path, talks: Path, table: Path, tmp_path: Path) -> None:
    common = ("--tokens", table, "--tokenizer", instruct, "--offset", OFFSET, "--engine", "local")
    result = codectok("export", "chat", talks, tmp_path / "out", *common, "--dry-run")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out").exists()
    assert f"{len(TALKS)}" in result.output
    assert "tokenizer" in result.output
    for more in ((), ("--format", "megatron"), ("--template", "unitts")):
        output = tmp_path / ("out" + "".join(more[1:]))
        result = codectok("export", "chat", talks, output, *common, *more)
        assert result.exit_code == 0, result.output
        assert codectok("verify", output).exit_code == 0
    assert_refused(
        codectok("export", "chat", talks, tmp_path / "out", *common, "--format", "megatron"), "made by `export chat`"
    )
    assert_refused(codectok("export", "chat", talks, tmp_path / "x", *common, "--too-long", "drop"), "--length")
    assert_refused(
        codectok("export", "chat", table, tmp_path / "x", *common, "--max-rejects", 1), "no column 'messages'"
    )
    assert_refused(codectok("export", "chat", talks, tmp_path / "x", *common, "--template", "none"), "no template none")
