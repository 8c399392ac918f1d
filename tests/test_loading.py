"""The code of docs/loading.md: each sample once for all ranks and workers, and exact resumes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from torch.utils.data import DataLoader, RandomSampler

from codectok.exports.choices import Packing
from codectok.exports.sequences.packing import PackingOptions
from codectok.pipelines.export.documents import MegatronJob, SequencesJob
from tests.helpers.exports import CODEBOOK, OFFSET, ROWS, export, options, write_parts
from tests.helpers.language_models import qwen2, write_model
from tests.helpers.megatron import read_indexed

PAGE = Path(__file__).parents[1] / "docs" / "loading.md"
LENGTH = 512
N_STEPS = 9


def code_of(section: str) -> str:
    """The Python code of a section of the page."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return str(code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as the page assumes it; the tests of this module run in it."""
    folder = tmp_path_factory.mktemp("loading")
    table = write_parts(folder / "pretraining" / "audio", 30)
    packing = PackingOptions(Packing.NEXT_FIT, LENGTH)
    made = options(packing=packing)
    for job, output in ((SequencesJob, "sequences"), (MegatronJob, "megatron")):
        export(job(made, [str(table)]), folder / output)
    write_model(folder / "model-audio", qwen2(layers=1, rows=OFFSET + CODEBOOK + 8))
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def run_section(section: str) -> dict[str, Any]:
    """Run the code of a section, and return its names."""
    names: dict[str, Any] = {}
    exec(code_of(section), names)
    return names


def test_plain_pytorch_resumes_at_any_step_on_any_ranks(folder: Path) -> None:
    page = run_section("Plain PyTorch")

    def train(rank: int, world_size: int, *position: int) -> list[tuple[int, int, list[str]]]:
        page.update(rank=rank, world_size=world_size)
        return list(page["train"](*position, last_epoch=1))

    expected = train(0, 1, 0, 0)
    for epoch in range(2):
        names = [name for number, _, batch in expected if number == epoch for name in batch]
        assert len(set(names)) == len(names) == len(ROWS) // 2 * 2
    assert [batch for number, _, batch in expected if number == 0] != [b for number, _, b in expected if number == 1]
    for epoch, n_steps, _ in expected[:: len(expected) // 3]:
        assert train(0, 1, epoch, n_steps) == expected[expected.index((epoch, n_steps, _)) + 1 :]
    ranks = [train(rank, 2, 0, 4) for rank in range(2)]
    for number in range(2):
        own = [[batch for epoch, _, batch in steps if epoch == number] for steps in ranks]
        together = [batch for step in zip(*own, strict=True) for batch in step]
        alone = [batch for epoch, _, batch in expected if epoch == number]
        first = 8 if number == 0 else 0
        assert together == alone[first : first + len(together)]
        assert len(alone) - first - len(together) < 2


@pytest.fixture(scope="module")
def trainer_page(folder: Path) -> dict[str, Any]:
    datasets.disable_progress_bars()
    return run_section("transformers Trainer")


def batches_of(trainer: Any) -> list[list[tuple[str, ...]]]:
    """A list to which the trainer appends the sequences of each step, as the ids of their documents."""
    names: dict[bytes, list[tuple[str, ...]]] = {}
    found: list[list[tuple[str, ...]]] = []
    collate = trainer.data_collator

    def collate_named(sequences: list[dict[str, Any]]) -> Any:
        batch = collate(sequences)
        names[batch["input_ids"].numpy().tobytes()] = [tuple(sequence["ids"]) for sequence in sequences]
        return batch

    def note(_module: Any, _arguments: Any, batch: dict[str, Any]) -> None:
        found.append(names[batch["input_ids"].numpy().tobytes()])

    # Loaders read batches ahead that no step uses.
    trainer.data_collator = collate_named
    trainer.model.register_forward_pre_hook(note, with_kwargs=True)
    return found


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_trainer_resumes_at_any_step(trainer_page: dict[str, Any], folder: Path) -> None:
    whole = trainer_page["trainer"]("whole", disable_tqdm=True)
    whole.args.save_steps, whole.args.max_steps = 1, N_STEPS
    expected = batches_of(whole)
    whole.train()
    assert len(losses(whole)) == len(expected) == N_STEPS
    per_epoch = len(whole.train_dataset) // 2
    assert per_epoch < N_STEPS  # the steps reach into a second epoch
    first = [sequence for batch in expected[:per_epoch] for sequence in batch]
    assert len(set(first)) == len(first)
    for step in (2, per_epoch, per_epoch + 1):
        resumed = trainer_page["trainer"]("resumed", disable_tqdm=True)
        resumed.args.save_steps, resumed.args.max_steps = 100, N_STEPS
        found = batches_of(resumed)
        resumed.train(resume_from_checkpoint=f"whole/checkpoint-{step}")
        assert losses(resumed) == losses(whole)
        assert found == expected[step:]


def test_ranks_of_trainer_read_each_sequence_once(trainer_page: dict[str, Any]) -> None:
    """Batches as the Trainer's accelerator divides them among the processes."""
    rows = datasets.load_dataset("parquet", data_files="sequences/*.parquet", split="train")
    everything = [tuple(row["ids"]) for row in rows]

    def batches(rank: int, n_ranks: int, epoch: int, drop_last: bool = True) -> list[list[tuple[str, ...]]]:
        loader = DataLoader(
            rows, 2, sampler=RandomSampler(rows), drop_last=drop_last,
            collate_fn=lambda batch: [tuple(row["ids"]) for row in batch],
        )  # fmt: skip
        shared = prepare_data_loader(
            loader, num_processes=n_ranks, process_index=rank, put_on_device=False, use_seedable_sampler=True,
            data_seed=42,
        )  # fmt: skip
        shared.set_epoch(epoch)
        if epoch == 0:
            assert list(skip_first_batches(shared, 1)) == list(shared)[1:]
            shared.set_epoch(epoch)
        return list(shared)

    dropped = set()
    for n_ranks in (1, 2, 3):
        for epoch in range(3):
            found = [row for rank in range(n_ranks) for batch in batches(rank, n_ranks, epoch) for row in batch]
            assert len(set(found)) == len(found) == len(everything) // (2 * n_ranks) * 2 * n_ranks
            if n_ranks == 3:
                dropped.add(frozenset(set(everything) - set(found)))
    assert len(dropped) > 1
    twice = [row for rank in range(3) for batch in batches(rank, 3, 0, drop_last=False) for row in batch]
    assert len(twice) > len(everything)


def test_packed_documents_do_not_see_each_other(trainer_page: dict[str, Any]) -> None:
    trainer = trainer_page["trainer"]("packed")
    sequences = [trainer.train_dataset[n] for n in range(2)]
    packed = trainer_page["collate"](sequences)
    apart = []
    for sequence in sequences:
        ends = np.cumsum(sequence["lengths"])
        for end, length in zip(ends, sequence["lengths"], strict=True):
            apart.append({"input_ids": sequence["input_ids"][end - length : end], "lengths": [length]})
    assert len(apart) > 2
    model = trainer.model.train()
    with torch.no_grad():
        together = model(**packed).loss
        alone = [model(**trainer_page["collate"]([document])).loss * (document["lengths"][0] - 1) for document in apart]
    predicted = sum(document["lengths"][0] - 1 for document in apart)
    assert int((packed["labels"] != -100).sum()) == predicted
    torch.testing.assert_close(together, torch.stack(alone).sum() / predicted)


def test_prefixes_of_megatron_hold_each_document_once(folder: Path) -> None:
    page = run_section("Megatron")
    words = (folder / "megatron" / "data-paths.txt").read_text().split()
    assert len(words) >= 4
    documents = []
    for prefix in words[1::2]:
        ids, lengths = page["read_prefix"](folder / "megatron" / prefix)
        sequences = [part.tolist() for part in np.split(ids, np.cumsum(lengths[:-1]))]
        assert sequences == read_indexed(folder / "megatron" / prefix).sequences
        assert max(lengths) <= LENGTH
        for sequence in sequences:
            text = json.dumps(sequence)[1:-1]
            documents += [part.strip(", ").split(", ") for part in re.split(r"\b0(?:, |$)", text) if part]
    expected = [[str(OFFSET + code) for code in row.codes[:, 0]] for row in ROWS]
    assert sorted(document[1:-1] for document in documents) == sorted(expected)


@pytest.mark.parametrize("files", ["pretraining/audio/*.parquet", "sequences/*.parquet"])
def test_streaming_resumes_at_any_row_of_any_rank(folder: Path, files: str) -> None:
    stream = run_section("`datasets`, streaming")["stream"]
    everything = sorted(json.dumps(row) for row in datasets.load_dataset("parquet", data_files=files, split="train"))
    orders = set()
    for world_size in (1, 2, 3):
        for epoch in range(3):
            rows = [list(stream(files, epoch, rank, world_size)) for rank in range(world_size)]
            assert sorted(json.dumps(row) for own in rows for row in own) == everything
            orders.add(json.dumps(rows))
            reading, resumed = (stream(files, epoch, world_size - 1, world_size) for _ in range(2))
            begun = iter(reading)
            for number in range(len(rows[-1])):
                if number % 7 == epoch:
                    resumed.load_state_dict(json.loads(json.dumps(reading.state_dict())))
                    assert list(resumed) == rows[-1][number:]
                next(begun)
    assert len(orders) > 3
