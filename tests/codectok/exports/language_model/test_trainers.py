"""Trainers read the labels, positions and lengths of exported sequences as they are meant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, DataCollatorWithFlattening, Trainer, TrainingArguments
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from codectok.exports.choices import Loss, Packing, TooLong
from codectok.exports.sequences.packing import PackingOptions
from codectok.pipelines.export.documents import SequencesJob
from tests.helpers.exports import OFFSET, VOCABULARY, export, options, sequences
from tests.helpers.language_models import qwen2

LENGTH = 160


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More threads slow down a model this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def rows(table: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("sequences") / "out"
    packing = PackingOptions(Packing.NEXT_FIT, LENGTH, TooLong.SPLIT)
    export(SequencesJob(options(packing=packing, loss=Loss.ANSWER), [str(table)]), out)
    found = [row for row in sequences(out) if len(row["lengths"]) > 1]
    assert len(found) > 3
    return found


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(qwen2(hidden_size=32, layers=1, rows=VOCABULARY.end))


def tensors(row: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name]]) for name in ("input_ids", "labels", "position_ids")}


def test_packed_documents_do_not_see_each_other(rows: list[dict[str, Any]], model: Any) -> None:
    """Logits of a packed sequence with its positions equal those of its documents alone.

    Transformers reads positions as borders of documents if there is neither an attention mask nor a cache.
    """
    for row in rows[:3]:
        with torch.no_grad():
            packed = model(**tensors(row), use_cache=False).logits[0]
            ends = np.cumsum(row["lengths"])
            for first, end in zip(ends - row["lengths"], ends, strict=True):
                alone = model(input_ids=torch.tensor([row["input_ids"][first:end]])).logits[0]
                torch.testing.assert_close(packed[first:end], alone, rtol=1e-4, atol=1e-5)


def test_labels_are_not_shifted(rows: list[dict[str, Any]], model: Any) -> None:
    """The model's loss is the mean over learned ids, each predicted at the position before it."""
    row = rows[0]
    with torch.no_grad():
        output = model(**tensors(row), use_cache=False)
    chances = output.logits[0].log_softmax(-1)
    ids = row["input_ids"]
    places = [place for place, label in enumerate(row["labels"]) if label != -100]
    assert 0 not in places
    expected = -np.mean([chances[place - 1, ids[place]].item() for place in places])
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)


def test_trl_reads_lengths_labels_and_positions(rows: list[dict[str, Any]]) -> None:
    """TRL calls the lengths of documents `seq_lengths`; positions and masks that it makes of them equal ours."""
    examples = [{"input_ids": row["input_ids"], "labels": row["labels"], "seq_lengths": row["lengths"]} for row in rows]
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(examples)
    for name in ("input_ids", "labels", "position_ids"):
        assert batch[name].tolist() == [[value for row in rows for value in row[name]]]
    ends = np.cumsum([length for row in rows for length in row["lengths"]]).tolist()
    assert batch["cu_seq_lens_q"].tolist() == [0, *ends]
    padded = DataCollatorForLanguageModeling(pad_token_id=0)(examples)
    assert padded["labels"][0, : len(rows[0]["labels"])].tolist() == rows[0]["labels"]


def test_transformers_flattens_documents_to_the_same_batch(rows: list[dict[str, Any]]) -> None:
    documents = []
    for row in rows:
        ends = np.cumsum(row["lengths"])
        for first, end in zip(ends - row["lengths"], ends, strict=True):
            documents.append({name: row[name][first:end] for name in ("input_ids", "labels")})
    batch = DataCollatorWithFlattening(return_flash_attn_kwargs=True)(documents)
    for name in ("input_ids", "labels", "position_ids"):
        assert batch[name].tolist() == [[value for row in rows for value in row[name]]]
    assert batch["cu_seq_lens_q"].tolist() == [0, *np.cumsum([len(one["input_ids"]) for one in documents]).tolist()]


def test_trainer_memorizes_a_sequence(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """The loss goes to zero, and the model then says the learned ids; labels with a shift would not allow it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(qwen2(hidden_size=64, rows=VOCABULARY.end))
    row = min(rows, key=lambda row: len(row["input_ids"]))
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=120,
        per_device_train_batch_size=1,
        learning_rate=5e-3,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        seed=0,
    )
    data = [{name: row[name] for name in ("input_ids", "labels", "position_ids")}] * 4
    trainer = Trainer(model=model, args=arguments, train_dataset=data)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] > 3
    assert losses[-1] < 0.05
    model.eval()
    with torch.no_grad():
        said = model(**tensors(row), use_cache=False).logits[0].argmax(-1)
    for place, label in enumerate(row["labels"]):
        # All documents begin with the same id, so that the next one cannot be known.
        assert label in (-100, int(said[place - 1])) or row["position_ids"][place] == 1
    assert any(OFFSET <= label < OFFSET + VOCABULARY.n_codes for label in row["labels"])
