"""Tiny language models and tokenizers of `transformers`, made here: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerFast, Qwen2Config

ROWS = 300
TEXTS = (
    "Hello, how are you today?",
    "The quick brown fox jumps over the lazy dog.",
    "Ein Satz in einer zweiten Sprache.",
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def qwen2(hidden_size: int = 64, layers: int = 2, tied: bool = False, rows: int = ROWS) -> Qwen2Config:
    """The structure of Qwen2.5 (7B has an output of its own, the small ones a tied one), tiny."""
    return Qwen2Config(
        vocab_size=rows,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer trained on three sentences, with Qwen's marks of turns; fewer tokens than rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, special_tokens=list(SPECIAL))
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SPECIAL[0],
        pad_token=SPECIAL[0],
        additional_special_tokens=list(SPECIAL[1:]),
        chat_template="{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    )
    fast.save_pretrained(folder)


def write_model(
    folder: Path, config: PretrainedConfig, dtype: torch.dtype = torch.float32, shard_size: str = "100GB"
) -> None:
    """A model with random weights, and a tokenizer beside it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    for name, parameter in model.named_parameters():
        # Fresh biases are zero, and what is zero hides mistakes.
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder, max_shard_size=shard_size)
    write_tokenizer(folder)
