"""Tiny language models of `transformers` with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Gemma3Config, PretrainedConfig, PreTrainedModel, Qwen2Config

from .tokenizers import save_tokenizer

# More rows than the tokenizer has tokens; the others are padding.
ROWS, TOKENS = 320, 277


def qwen2(hidden_size: int = 64, layers: int = 2, tied: bool = False, rows: int = ROWS) -> Qwen2Config:
    """A tiny Qwen2.5; the 7B model has a separate output, smaller models a tied one."""
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


def gemma3() -> Gemma3Config:
    """A tiny Gemma 3 with vision; the section `text_config` describes the text model and its embedding."""
    text = {"vocab_size": ROWS, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    special: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return Gemma3Config(
        text_config=text | heads | special,
        vision_config={**vision, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        **special,
    )


def write_model(
    folder: Path, config: PretrainedConfig, dtype: torch.dtype = torch.float32, shard_size: str = "100GB"
) -> None:
    """Write a model with random weights, and a tokenizer beside it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    for name, parameter in model.named_parameters():
        # Initial biases are zero, which would hide mistakes.
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder, max_shard_size=shard_size)
    save_tokenizer(folder)


def load(folder: Path) -> PreTrainedModel:
    """Load a model, and check that the folder's tensors match the model in names and shapes."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype="auto")
    model, info = loaded
    assert isinstance(model, PreTrainedModel)
    assert not any(info.values()), info
    return model.eval()


def embedding_of(model: PreTrainedModel) -> torch.nn.Embedding:
    """Return the input embedding."""
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    return embedding


def output_of(model: PreTrainedModel) -> torch.nn.Linear:
    """Return the output layer."""
    output = model.get_output_embeddings()
    assert isinstance(output, torch.nn.Linear)
    return output


def remove_tokenizer(folder: Path) -> None:
    """Remove the files of the tokenizer."""
    for path in folder.glob("tokenizer*"):
        path.unlink()


def matrices(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of the input embedding and of the output layer."""
    return embedding_of(model).weight.detach(), output_of(model).weight.detach()
