"""Tiny language models of `transformers`, made here: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, Qwen2Config

from .tokenizers import save_tokenizer

# More than the tokenizer has tokens.
ROWS = 320


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
    save_tokenizer(folder)
