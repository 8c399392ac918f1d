"""End to end: a recording becomes tokens, a language model learns and generates them, and they are decoded to audio."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from codectok import Codec
from codectok.exports.vocabulary import VocabularyFile
from codectok.tokens.reader import open_table
from codectok.tokens.vocabulary import BEGIN_AUDIO, END_AUDIO, Vocabulary
from tests.helpers.command_line import codectok
from tests.helpers.language_models import qwen2, write_model

TEXT = "say hello"
# Neither the tokenizer's number of tokens nor any real model's, so that a wrong offset fails.
ROWS = 331
SECONDS = 0.7


@pytest.fixture
def one_thread() -> Iterator[None]:
    """More threads slow down a model this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(*arguments: object) -> None:
    result = codectok(*arguments)
    assert result.exit_code == 0, result.output


def prepare(golden: Path, folder: Path) -> Codec:
    """Write a codec with the reference's weights, a table of one recording, an extended model, and sequences."""
    codec = Codec.from_distilcodec(golden, step=42, device="cpu")
    codec.save_pretrained(folder / "codec")
    samples, rate = soundfile.read(golden / "audio_24k.wav")
    soundfile.write(folder / "hello.wav", samples[: round(SECONDS * rate)], rate)
    (folder / "hello.jsonl").write_text(json.dumps({"audio_filepath": str(folder / "hello.wav"), "text": TEXT}) + "\n")
    write_model(folder / "lm", qwen2(hidden_size=72, rows=ROWS))
    here = ("--engine", "local")
    run("tokenize", folder / "hello.jsonl", folder / "tokens", "--codec", folder / "codec", "--device", "cpu", *here)
    run("export", "language-model", folder / "lm", folder / "lm-audio", "--codec", folder / "codec")
    of_model = ("--task", "tts", "--tokenizer", folder / "lm-audio")
    run("export", "sequences", folder / "tokens", folder / "sequences", *of_model, *here)
    return codec


def train(model: torch.nn.Module, ids: torch.Tensor) -> list[float]:
    """Train until the model has memorized the sequence, and return the losses."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    losses: list[float] = []
    for _ in range(300):
        loss = model(ids, labels=ids).loss
        losses.append(loss.item())
        if losses[-1] < 0.05:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses


@pytest.mark.usefixtures("one_thread")
def test_tiny_model_learns_and_generates_recording(golden: Path, tmp_path: Path) -> None:
    codec = prepare(golden, tmp_path)
    (row,) = open_table(tmp_path / "tokens")
    assert len(np.unique(row.codes)) > 20

    # The ids of the sequences are the rows of this model.
    told = VocabularyFile(**AutoConfig.from_pretrained(tmp_path / "lm-audio").codectok)
    assert (told.codec_fingerprint, told.offset) == (codec.fingerprint, ROWS)
    vocabulary = Vocabulary.for_codec(codec.describe(), told.offset)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lm-audio")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "lm-audio")
    (sequence,) = pq.read_table(tmp_path / "sequences" / "part-000000.parquet")["input_ids"].to_pylist()
    audio = "".join(vocabulary.token(int(token_id)) for token_id in vocabulary.ids_of(row.codes))
    assert sequence == tokenizer(f"{TEXT}{BEGIN_AUDIO}{audio}{END_AUDIO}{tokenizer.eos_token}").input_ids
    n_rows = model.get_input_embeddings().num_embeddings
    assert n_rows == vocabulary.end > max(sequence) >= vocabulary.offset + vocabulary.n_codes

    losses = train(model, torch.tensor([sequence]))
    assert losses[-1] < 0.05 < 4 < losses[0]

    prompt = tokenizer(f"{TEXT}{BEGIN_AUDIO}", return_tensors="pt")
    end = tokenizer.convert_tokens_to_ids(END_AUDIO)
    said = model.eval().generate(**prompt, max_new_tokens=row.codes.size + 10, do_sample=False, eos_token_id=end)[0]
    assert said[-1] == end
    spoken = vocabulary.codes_of(said[prompt.input_ids.shape[1] : -1].numpy())
    np.testing.assert_array_equal(spoken, row.codes)
    soundfile.write(tmp_path / "said.wav", codec.decode(spoken).numpy(), codec.sample_rate)
    waveform, rate = soundfile.read(tmp_path / "said.wav")
    assert (len(waveform), rate) == (len(row.codes) * codec.frame_size, 24_000)
    np.testing.assert_allclose(waveform, codec.decode(row.codes).numpy(), atol=1e-4)
