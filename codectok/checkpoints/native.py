"""Checkpoints of codectok: a folder with `config.json` and `model.safetensors`.

Tensors are float32 or float16, and ready for inference: weight norm is folded, and training state is left out. They are
loaded as float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from codectok.atomic import replacing, write_text
from codectok.choices import WeightsType
from codectok.config import CodecConfig, StrictModel, load_mapping, parse
from codectok.errors import CheckpointError, CodectokError, InputError
from codectok.model.network import CodecNetwork
from codectok.names import utf8_path

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"


class SameCodes(StrictModel):
    """Codecs with the same codes, since they differ in the decoder only.

    Attributes:
        codecs: their fingerprints.
        encoding_sha256: of their settings and tensors that determine codes, see
            `codectok.codecs.fingerprints.hash_encoding`; a codec with another one has other codes.
    """

    codecs: tuple[str, ...]
    encoding_sha256: str


class CheckpointHeader(StrictModel):
    """Contents of `config.json`.

    Attributes:
        origin: describes where the weights come from.
        config: the architecture.
        same_codes: other codecs whose codes this one decodes, if any.
    """

    format: Literal["codectok.codec"] = "codectok.codec"
    version: Literal[1] = 1
    origin: str
    config: CodecConfig
    same_codes: SameCodes | None = None


def is_checkpoint(directory: Path) -> bool:
    """True if `directory` holds the files of a checkpoint."""
    return (directory / MODEL_FILE).is_file() and (directory / CONFIG_FILE).is_file()


def save_checkpoint(
    directory: Path, header: CheckpointHeader, state: dict[str, Tensor], dtype: WeightsType = "float32"
) -> None:
    """Write a checkpoint into `directory`; the configuration is written last.

    Raises:
        InputError: `directory` already holds a checkpoint.
        CodectokError: the tensors cannot be written, or are too large for `dtype`.
    """
    if (directory / CONFIG_FILE).exists() or (directory / MODEL_FILE).exists():
        raise InputError(f"{directory} already holds a codec; choose another folder.")
    path = directory / MODEL_FILE
    stored = {key: tensor.to(getattr(torch, dtype)).contiguous() for key, tensor in state.items()}
    if dtype == "float16":
        for key, tensor in stored.items():
            if not _is_finite(tensor):
                raise CodectokError(f"The tensor {key!r} is too large for float16; write the codec in float32.")
    try:
        with replacing(path) as temporary:
            save_file(stored, temporary, metadata={"format": "pt"})
    except SafetensorError as error:
        raise CodectokError(f"{path} could not be written: {error}.") from None
    absent = {"same_codes"} if header.same_codes is None else None
    write_text(directory / CONFIG_FILE, header.model_dump_json(indent=2, exclude=absent) + "\n")


def read_header(directory: Path) -> CheckpointHeader:
    """Read `config.json` of a checkpoint.

    Raises:
        CheckpointError: `directory` is not a checkpoint.
        ConfigError: the configuration is invalid.
    """
    if not is_checkpoint(directory):
        raise CheckpointError(f"{directory} is not a codec: it must hold {CONFIG_FILE} and {MODEL_FILE}.")
    path = directory / CONFIG_FILE
    return parse(CheckpointHeader, load_mapping(path), str(path))


def load_checkpoint(directory: Path) -> tuple[CheckpointHeader, CodecNetwork]:
    """Read a checkpoint.

    Raises:
        CheckpointError: not a checkpoint, a damaged file, a missing, unexpected or misshapen tensor, or one that is not
            finite.
        ConfigError: the configuration is invalid.
    """
    header = read_header(directory)
    path = directory / MODEL_FILE
    try:
        with utf8_path(path) as named, safe_open(named, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in list(file.keys())}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; copy or export the codec again.") from None
    return header, build_network(header.config, state, str(path))


def build_network(config: CodecConfig, state: dict[str, Tensor], origin: str) -> CodecNetwork:
    """Build a network of `config` in inference mode from the tensors of `state`, without copying them.

    Raises:
        CheckpointError: a tensor is missing, unexpected or misshapen; `origin` names their source in the message.
    """
    network = meta_network(config, len(state), origin)
    expected = network.state_dict()
    check_tensors({key: tuple(tensor.shape) for key, tensor in expected.items()}, state, origin)
    check_finite_tensors(state, origin)
    network.load_state_dict({key: tensor.float() for key, tensor in state.items()}, assign=True)
    return network.eval().requires_grad_(False)


def meta_network(config: CodecConfig, n_tensors: int, origin: str) -> CodecNetwork:
    """Build a network without memory for its tensors, unless it needs more than the `n_tensors` of the file `origin`.

    Raises:
        CheckpointError: it does, or the network is impossible.
    """
    if config.n_modules > n_tensors:
        raise CheckpointError(
            f"{origin} has {n_tensors} tensors, but its configuration describes a network of {config.n_modules} modules"
            " at least; they do not belong together."
        )
    try:
        with torch.device("meta"), _WithoutRandomWeights():
            return CodecNetwork(config)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{origin}: its configuration describes an impossible network: {error}.") from None


_RANDOM_STEPS = {Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_}


class _WithoutRandomWeights(TorchFunctionMode):
    """Skips the steps of random initialization; on the device "meta" torch imports its whole compiler for some."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return args[0] if func in _RANDOM_STEPS else func(*args, **(kwargs or {}))


def check_finite_tensors(state: dict[str, Tensor], origin: str) -> None:
    """Raise a `CheckpointError` that names the first tensor of `state` with a value that is NaN or infinite."""
    for key, tensor in state.items():
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise CheckpointError(f"{origin}: tensor {key!r} has values that are not finite; its training diverged.")


def _is_finite(tensor: Tensor) -> bool:
    # NumPy's sum is several times as fast as one in float64, but finite values can add up to more than float32 holds.
    if tensor.dtype == torch.float32 and tensor.device.type == "cpu":
        with np.errstate(all="ignore"):
            if np.isfinite(tensor.detach().numpy().sum()):
                return True
    return bool(torch.isfinite(tensor.sum(dtype=torch.float64)))


def check_tensors(expected: dict[str, tuple[int, ...]], state: dict[str, Tensor], origin: str) -> None:
    """Compare the tensors of `state` with the `expected` shapes.

    Raises:
        CheckpointError: a tensor is missing, unexpected or misshapen; the message names the first.
    """
    for key, shape in expected.items():
        if key not in state:
            raise CheckpointError(f"{origin} has no tensor {key!r} (expected shape {list(shape)}).")
        if not isinstance(state[key], Tensor):
            raise CheckpointError(f"{origin}: {key!r} is not a tensor but a {type(state[key]).__name__}.")
        found = tuple(state[key].shape)
        if found != shape:
            raise CheckpointError(
                f"{origin}: tensor {key!r} has shape {list(found)}, but the configuration expects {list(shape)}."
            )
    unexpected = sorted(set(state) - set(expected))
    if unexpected:
        raise CheckpointError(f"{origin} has a tensor {unexpected[0]!r} that its configuration does not have.")
