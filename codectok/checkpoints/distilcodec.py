"""Import of DistilCodec checkpoints: `g_XXXXXXXX` beside `model_config.json`.

Names and shapes are those of the published checkpoints; both names of weight norm tensors are accepted
(`weight_g`/`weight_v` and `parametrizations.weight.original0`/`original1`).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from codectok.errors import CheckpointError, shortened
from codectok.model.network import CodecNetwork

from .distilcodec_config import read_config
from .native import CheckpointHeader, build_network, meta_network

STEP_FILE = re.compile(r"g_\d{8}", re.ASCII)
COMPONENTS = ("encoder", "quantizer", "generator")
TRAINING_ONLY = re.compile(r"\._codebook\.(initted|cluster_size|embed_avg)$")
WEIGHT_NORM_NAMES = (
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ("weight_g", "weight_v"),
)

Layout = Literal["same", "pointwise", "downsample", "upsample", "codebook"]

_BLOCK_NAMES = {"depthwise": "dwconv", "expand": "pwconv1", "contract": "pwconv2"}
# Pattern of our tensor name, component and name in the reference, layout there; the first match is used.
_RULES: tuple[tuple[str, str, Layout], ...] = (
    (r"encoder\.stem\.(.+)", r"encoder:downsample_layers.0.0.\1", "same"),
    (r"encoder\.stem_norm\.(.+)", r"encoder:downsample_layers.0.1.\1", "same"),
    (r"encoder\.transitions\.(\d+)\.1\.weight", r"encoder:downsample_layers.{\1+1}.1.weight", "pointwise"),
    (r"encoder\.transitions\.(\d+)\.(.+)", r"encoder:downsample_layers.{\1+1}.\2", "same"),
    (r"encoder\.(stages|norm)\.(.+)", r"encoder:\1.\2", "same"),
    (r"quantizer\.inner\.groups\.(\d+)\.layers\.(\d+)\.embedding",
     r"quantizer:grvq.rvqs.\1.layers.\2._codebook.embed", "codebook"),
    (r"quantizer\.inner\.groups\.(.+)", r"quantizer:grvq.rvqs.\1", "same"),
    (r"quantizer\.downsample\.(\d+)\.linear\.weight", r"quantizer:downsample.\1.0.weight", "downsample"),
    (r"quantizer\.downsample\.(\d+)\.linear\.bias", r"quantizer:downsample.\1.0.bias", "same"),
    (r"quantizer\.upsample\.(\d+)\.weight", r"quantizer:upsample.\1.0.weight", "upsample"),
    (r"quantizer\.upsample\.(\d+)\.bias", r"quantizer:upsample.\1.0.bias", "same"),
    (r"quantizer\.(downsample|upsample)\.(\d+)\.block\.(.+)", r"quantizer:\1.\2.1.\3", "same"),
    (r"decoder\.pre\.(.+)", r"generator:conv_pre.\1", "same"),
    (r"decoder\.post\.(.+)", r"generator:conv_post.\1", "same"),
    (r"decoder\.upsamples\.(.+)", r"generator:ups.\1", "same"),
    (r"decoder\.blocks\.(\d+)\.(\d+)\.dilated\.(.+)", r"generator:resblocks.\1.blocks.\2.convs1.\3", "same"),
    (r"decoder\.blocks\.(\d+)\.(\d+)\.plain\.(.+)", r"generator:resblocks.\1.blocks.\2.convs2.\3", "same"),
)  # fmt: skip


def import_distilcodec(directory: Path, step: int | None = None) -> tuple[CheckpointHeader, CodecNetwork]:
    """Read a DistilCodec checkpoint.

    Args:
        directory: holds `model_config.json` and files named `g_` with an eight-digit step.
        step: step to import; None if there is only one.

    Raises:
        CheckpointError: the step does not exist or is ambiguous, the file is not a checkpoint, or a tensor is missing,
            unexpected or misshapen.
        ConfigError: the configuration is not supported.
    """
    path = _find_step(directory, step)
    config = read_config(directory)
    components = _read_components(path)
    network = meta_network(config, sum(map(len, components.values())), str(path))
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    state = {}
    for key, shape in expected.items():
        source = _source_of(key)
        state[key] = source.to_ours(source.take(components[source.component], shape, path))
    _refuse_leftovers(components, path)
    header = CheckpointHeader(origin=f"imported from DistilCodec {path.name}", config=config)
    return header, build_network(config, state, str(path))


@dataclass(frozen=True)
class _Source:
    """Component, name and layout of one of our tensors in the reference's checkpoint."""

    component: str
    key: str
    layout: Layout

    def reference_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.layout == "pointwise":
            return (*shape, 1)
        if self.layout == "codebook":
            return (1, *shape)
        if self.layout == "downsample":
            dim, joined = shape
            return (dim, dim, joined // dim)
        if self.layout == "upsample":
            split, dim = shape
            return (dim, dim, split // dim)
        return shape

    def take(self, tensors: dict[str, Tensor], shape: tuple[int, ...], path: Path) -> Tensor:
        """Remove the tensor from `tensors` and return it with weight norm folded; `shape` is our shape."""
        expected = self.reference_shape(shape)
        if self.key in tensors:
            return self._checked(self.key, tensors.pop(self.key), expected, path)
        prefix = self.key.removesuffix("weight")
        for magnitude_name, direction_name in WEIGHT_NORM_NAMES:
            if prefix + direction_name in tensors and prefix + magnitude_name in tensors:
                direction = self._checked(prefix + direction_name, tensors.pop(prefix + direction_name), expected, path)
                norm_shape = (expected[0], *[1] * (len(expected) - 1))
                magnitude = self._checked(
                    prefix + magnitude_name, tensors.pop(prefix + magnitude_name), norm_shape, path
                )
                # In float64, so that the rounded kernel is the same on every machine.
                direction = direction.double()
                norm: Tensor = torch.linalg.vector_norm(direction, dim=tuple(range(1, len(expected))), keepdim=True)
                return (direction * (magnitude.double() / norm)).float()
        raise CheckpointError(f"{path} has no tensor '{self.component}.{self.key}' (expected shape {list(expected)}).")

    def to_ours(self, tensor: Tensor) -> Tensor:
        if self.layout == "pointwise":
            return tensor.squeeze(-1)
        if self.layout == "codebook":
            return tensor.squeeze(0)
        if self.layout == "downsample":  # [out, in, factor] -> [out, factor * in]
            return tensor.transpose(1, 2).flatten(1)
        if self.layout == "upsample":  # [in, out, factor] -> [factor * out, in]
            return tensor.permute(2, 1, 0).flatten(0, 1)
        return tensor

    def _checked(self, key: str, tensor: Tensor, expected: tuple[int, ...], path: Path) -> Tensor:
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: '{self.component}.{key}' is not a tensor but a {type(tensor).__name__}.")
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise CheckpointError(
                f"{path}: tensor '{self.component}.{key}' holds {tensor.dtype} ({tensor.layout}), not numbers."
            )
        if tuple(tensor.shape) != expected:
            raise CheckpointError(
                f"{path}: tensor '{self.component}.{key}' has shape {list(tensor.shape)},"
                f" but its configuration expects {list(expected)}."
            )
        return tensor


def _source_of(key: str) -> _Source:
    for pattern, replacement, layout in _RULES:
        match = re.fullmatch(pattern, key)
        if match:
            reference = match.expand(replacement)
            reference = re.sub(r"\{(\d+)\+1\}", lambda m: str(int(m[1]) + 1), reference)
            component, name = reference.split(":")
            parts = [_BLOCK_NAMES.get(part, part) for part in name.split(".")]
            return _Source(component, ".".join(parts), layout)
    raise AssertionError(f"no rule for {key}")


def step_file(step: int) -> str:
    """Return the name of the file of `step`."""
    return f"g_{step:08d}"


def step_of_file(name: str) -> int | None:
    """Return the step of the file `name`; None if it is not a checkpoint's."""
    return int(name[2:]) if STEP_FILE.fullmatch(name) else None


def steps_in(directory: Path) -> list[int]:
    """Return the steps of the checkpoints in `directory`, in order."""
    found = [step_of_file(path.name) for path in directory.iterdir()]
    return sorted(step for step in found if step is not None)


def _find_step(directory: Path, step: int | None) -> Path:
    if not directory.is_dir():
        raise CheckpointError(f"There is no folder {directory}.")
    steps = steps_in(directory)
    if not steps:
        raise CheckpointError(f"{directory} holds no DistilCodec checkpoint (a file such as g_00204000).")
    listed = ", ".join(str(s) for s in steps)
    if step is None:
        if len(steps) > 1:
            raise CheckpointError(f"{directory} holds several steps ({listed}); choose one with --step.")
        step = steps[0]
    if step not in steps:
        raise CheckpointError(f"{directory} holds no step {step}; it holds {listed}.")
    return directory / step_file(step)


def _read_components(path: Path) -> dict[str, dict[str, Tensor]]:
    try:
        # Memory-mapped, so that 1.6 GB are read tensor by tensor during conversion.
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged stream of pickle instructions may raise anything
        raise CheckpointError(f"{path} is not a readable checkpoint: {shortened(error)}.") from None
    if not isinstance(data, Mapping) or any(not isinstance(data.get(c), Mapping) for c in COMPONENTS):
        raise CheckpointError(f"{path} is not a DistilCodec checkpoint: it must hold {', '.join(COMPONENTS)}.")
    return {component: dict(data[component]) for component in COMPONENTS}


def _refuse_leftovers(components: dict[str, dict[str, Tensor]], path: Path) -> None:
    for component, tensors in components.items():
        for key in tensors:
            if not TRAINING_ONLY.search(str(key)):
                raise CheckpointError(f"{path} has a tensor '{component}.{key}' that its configuration does not have.")
