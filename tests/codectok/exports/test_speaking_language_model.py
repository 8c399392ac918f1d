"""From a clip to a language model that says it: tokens, rows, training, generation, audio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from codectok.exports.language_model import extend_language_model
from codectok.exports.vocabulary import VocabularyFile
from codectok.tokens.vocabulary import BEGIN_AUDIO, END_AUDIO, Vocabulary

from ...conftest import tone
from ..codecs import VARIANTS, make_codec
from .language_models import qwen2, write_model

PROMPT = "say hello"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on so small a model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("variant", ["one-codebook", "grouped-residual"])
def test_a_tiny_model_learns_a_clip_and_says_it(variant: str, tmp_path: Path) -> None:
    codec = make_codec(VARIANTS[variant])
    codes = codec.encode(tone(0.4, 24_000), 24_000).numpy()
    assert len(np.unique(codes)) > 10
    write_model(tmp_path / "lm", qwen2())
    extend_language_model(tmp_path / "lm", tmp_path / "out", codec)

    # From here on nothing is known but what lies in the folder, and the codec.
    told = VocabularyFile(**AutoConfig.from_pretrained(tmp_path / "out").codectok)
    assert told.codec_fingerprint == codec.fingerprint
    vocabulary = Vocabulary.for_codec(codec.describe(), told.offset)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    audio = "".join(vocabulary.token(int(token_id)) for token_id in vocabulary.ids_of(codes))
    ids = tokenizer(f"{PROMPT}{BEGIN_AUDIO}{audio}{END_AUDIO}{tokenizer.eos_token}", return_tensors="pt").input_ids
    assert ids.max() < vocabulary.end

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    losses = []
    for _ in range(200):
        loss = model(ids, labels=ids).loss
        losses.append(loss.item())
        if losses[-1] < 0.05:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.05 < 4 < losses[0]

    prompt = tokenizer(f"{PROMPT}{BEGIN_AUDIO}", return_tensors="pt")
    end = tokenizer.convert_tokens_to_ids(END_AUDIO)
    said = model.eval().generate(**prompt, max_new_tokens=codes.size + 10, do_sample=False, eos_token_id=end)[0]
    assert said[-1] == end
    spoken = vocabulary.codes_of(said[prompt.input_ids.shape[1] : -1].numpy())
    np.testing.assert_array_equal(spoken, codes)
    soundfile.write(tmp_path / "said.wav", codec.decode(spoken).numpy(), codec.sample_rate)
    waveform, rate = soundfile.read(tmp_path / "said.wav")
    assert (len(waveform), rate) == (len(codes) * codec.frame_size, 24_000)
    np.testing.assert_allclose(waveform, codec.decode(codes).numpy(), atol=1e-4)
