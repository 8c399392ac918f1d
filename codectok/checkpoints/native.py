"""The project's checkpoint: a folder with `config.json` and `model.safetensors`.

Tensors are float32 and ready for inference: weight norm is folded, nothing that only training needs is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from codectok.atomic import replacing, write_text
from codectok.config import CodecConfig, StrictModel, load_mapping, parse
from codectok.errors import CheckpointError, CodectokError, InputError
from codectok.model.network import CodecNetwork

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"


class CheckpointHeader(StrictModel):
    """Contents of `config.json`; `origin` says in words where the weights come from."""

    format: Literal["codectok.codec"] = "codectok.codec"
    version: Literal[1] = 1
    origin: str
    config: CodecConfig


def is_checkpoint(directory: Path) -> bool:
    """Whether `directory` looks like a checkpoint of this format."""
    return (directory / MODEL_FILE).is_file() and (directory / CONFIG_FILE).is_file()


def save_checkpoint(directory: Path, header: CheckpointHeader, state: dict[str, Tensor]) -> None:
    """Write a checkpoint into `directory`, which must not hold one yet; the configuration comes last."""
    if (directory / CONFIG_FILE).exists() or (directory / MODEL_FILE).exists():
        raise InputError(f"{directory} already holds a codec; choose another folder.")
    path = directory / MODEL_FILE
    try:
        with replacing(path) as temporary:
            save_file({key: t.contiguous() for key, t in state.items()}, temporary, metadata={"format": "pt"})
    except SafetensorError as error:
        raise CodectokError(f"{path} could not be written: {error}.") from None
    write_text(directory / CONFIG_FILE, header.model_dump_json(indent=2) + "\n")


def read_header(directory: Path) -> CheckpointHeader:
    """Read `config.json` of a checkpoint."""
    if not is_checkpoint(directory):
        raise CheckpointError(
            f"{directory} is not a codec: it must hold {CONFIG_FILE} and {MODEL_FILE}"
            " (a DistilCodec checkpoint is first converted with `codectok import-distilcodec`)."
        )
    path = directory / CONFIG_FILE
    return parse(CheckpointHeader, load_mapping(path), str(path))


def load_checkpoint(directory: Path) -> tuple[CheckpointHeader, CodecNetwork]:
    """Read a checkpoint; a missing, unexpected or wrongly shaped tensor is named in a `CheckpointError`."""
    header = read_header(directory)
    path = directory / MODEL_FILE
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in list(file.keys())}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; copy or export the codec again.") from None
    return header, build_network(header.config, state, str(path))


def build_network(config: CodecConfig, state: dict[str, Tensor], origin: str) -> CodecNetwork:
    """A network of `config` in inference mode that takes over the tensors of `state` without copying them."""
    with torch.device("meta"):
        network = CodecNetwork(config)
    expected = network.state_dict()
    check_tensors({key: tuple(tensor.shape) for key, tensor in expected.items()}, state, origin)
    network.load_state_dict({key: tensor.float() for key, tensor in state.items()}, assign=True)
    return network.eval().requires_grad_(False)


def check_tensors(expected: dict[str, tuple[int, ...]], state: dict[str, Tensor], origin: str) -> None:
    """Raise a `CheckpointError` that names the first tensor of `state` that is missing, unexpected or misshapen."""
    for key, shape in expected.items():
        if key not in state:
            raise CheckpointError(f"{origin} has no tensor {key!r} (expected shape {list(shape)}).")
        found = tuple(state[key].shape)
        if found != shape:
            raise CheckpointError(
                f"{origin}: tensor {key!r} has shape {list(found)}, but the configuration asks for {list(shape)}."
            )
    unexpected = sorted(set(state) - set(expected))
    if unexpected:
        raise CheckpointError(f"{origin} has a tensor {unexpected[0]!r} that the configuration knows nothing of.")
