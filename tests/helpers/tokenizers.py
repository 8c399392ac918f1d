"""A small text tokenizer of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"


def save_tokenizer(folder: Path, added: Sequence[str] = ()) -> Path:
    """Save a byte-level BPE tokenizer: `END_OF_TEXT` first, bytes and some merges, then `added` as special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[END_OF_TEXT], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["hello world, say hello to the world of words"] * 3, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_OF_TEXT)
    wrapped.add_tokens(list(added), special_tokens=True)
    wrapped.save_pretrained(folder)
    return folder


def text_of(folder: Path, ids: Sequence[int]) -> str:
    """Decode ids with the tokenizer in `folder`."""
    return PreTrainedTokenizerFast.from_pretrained(folder).decode(list(ids))
