"""Folder of a language model of `transformers`, and its tensors that grow with the vocabulary."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn.modules.module import register_module_module_registration_hook

from codectok.config import load_mapping
from codectok.errors import InputError, shortened
from codectok.exports.optional import need_transformers

from .safetensors_file import StoredTensor, stored_tensors
from .vocabulary import CONFIG_FILE, ROWS_KEY, ModelVocabulary, rows_section

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# Models have about as many modules as tensors; fused tensors hold those of many modules.
MODULES_PER_TENSOR, MODULES_WITHOUT_TENSORS = 20, 2000
COUNT_KEY = re.compile("layer|head|expert|block|depth")
MAX_COUNT = 1 << 16
LARGEST_NUMBER = 1 << 63


TensorRole = Literal["embedding", "output"]


@dataclass(frozen=True)
class VocabularyTensor:
    """A stored tensor with a row per id, and its role; an output tied to the embedding has the role "embedding"."""

    stored: StoredTensor
    role: TensorRole


class ModelFolder:
    """A causal language model in a folder, as `save_pretrained` writes it.

    Attributes:
        path: the folder.
        config: contents of `config.json`.
        index: contents of `model.safetensors.index.json`; None for a model in one file.
        files: weight files.

    Raises:
        InputError: `path` is not the folder of a language model, or its weights are not safetensors.
    """

    def __init__(self, path: Path) -> None:
        if not (path / CONFIG_FILE).is_file():
            raise InputError(f"{path} is not the folder of a language model: it holds no {CONFIG_FILE}.")
        self.path = path
        self.config = load_mapping(path / CONFIG_FILE)
        if not isinstance(self.config.get("model_type"), str):
            raise InputError(f"{path} is not the folder of a language model: its {CONFIG_FILE} names no model_type.")
        self.index: dict[str, Any] | None = None
        names = [WEIGHTS_FILE]
        if (path / INDEX_FILE).is_file():
            self.index = load_mapping(path / INDEX_FILE)
            weight_map = self.index.get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise InputError(f"{path / INDEX_FILE} lists no tensors; copy or download it again.")
            names = sorted({Path(str(name)).name for name in weight_map.values()})
        self.files = [path / name for name in names]
        missing = [file for file in self.files if not file.is_file()]
        if missing and self.index is not None:
            raise InputError(
                f"{missing[0]} is missing, but {path / INDEX_FILE} lists it; copy or download the model again."
            )
        if missing:
            raise InputError(
                f"{missing[0]} is missing; weights must be safetensors"
                " (load other formats with transformers and save them with save_pretrained)."
            )

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """All stored tensors by name."""
        return {tensor.name: tensor for file in self.files for tensor in stored_tensors(file)}

    @cached_property
    def vocabulary(self) -> ModelVocabulary:
        """Vocabulary that `config` describes."""
        return ModelVocabulary.of(self.config, self.path / CONFIG_FILE)

    def config_with(self, rows: int) -> dict[str, Any]:
        """Return `config` with `rows` rows of the embedding."""
        config = copy.deepcopy(self.config)
        rows_section(config)[ROWS_KEY] = rows
        if ROWS_KEY in config:  # also if the text model's section is the one that counts
            config[ROWS_KEY] = rows
        return config

    def vocabulary_tensors(self) -> list[VocabularyTensor]:
        """Return the stored tensors that grow with the rows of the embedding: embedding, output and output bias.

        A tensor with several names in the model is listed once.

        Raises:
            InputError: the model is not a causal language model of transformers, another tensor would have to grow, or
                a tensor is missing.
        """
        model = _build(self.config, self.path, len(self.tensors))
        rows = self.vocabulary.rows + 1
        larger = _build(self.config_with(rows), self.path, len(self.tensors))
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        growing = [name for name, tensor in larger.state_dict().items() if shapes.get(name) != tuple(tensor.shape)]
        if larger.config.get_text_config().vocab_size != rows or not growing:
            raise InputError(
                f"{self.path / CONFIG_FILE} does not decide the rows of the embedding; this model cannot be extended."
            )
        embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
        parameters = dict(model.named_parameters(remove_duplicate=False))
        ours = {id(parameter) for module in (embedding, output) for parameter in module.parameters()}
        found: dict[str, VocabularyTensor] = {}
        for name in growing:
            if id(parameters.get(name)) not in ours:
                raise InputError(f"{self.path}: the tensor {name!r} would have to grow, too; this is not supported.")
            stored = self._stored(name, shapes, f"{model.base_model_prefix}.")
            if stored is not None:
                role: TensorRole = "embedding" if parameters[name] is embedding.weight else "output"
                found.setdefault(stored.name, VocabularyTensor(stored, role))
            elif parameters[name] is not embedding.weight or parameters[name] is not output.weight:
                raise InputError(f"{self.path} has no tensor {name!r} (expected shape {list(shapes[name])}).")
        if not found:
            raise InputError(f"{self.path} holds no embedding; copy or download the model again.")
        return list(found.values())

    def _stored(self, name: str, shapes: Mapping[str, tuple[int, ...]], prefix: str) -> StoredTensor | None:
        """Return the stored tensor that a model with these shapes calls `name`; None if it is missing."""
        stored = self.tensors.get(name) or self.tensors.get(name.removeprefix(prefix))
        if stored is None:
            # Some models store tensors under other names: take the only unknown tensor of the right shape.
            unknown = [t for t in self.tensors.values() if t.name not in shapes and prefix + t.name not in shapes]
            same = [tensor for tensor in unknown if tensor.shape == shapes[name]]
            return same[0] if len(same) == 1 else None
        if stored.shape != shapes[name]:
            raise InputError(
                f"{stored.file}: the tensor {stored.name!r} has shape {list(stored.shape)}, but the configuration"
                f" needs {list(shapes[name])}."
            )
        return stored


def _parse_config(config: Mapping[str, Any], path: Path) -> Any:
    transformers = need_transformers()
    kind = config["model_type"]
    _check_counts(config, path)
    if kind not in transformers.CONFIG_MAPPING:
        version = transformers.__version__
        raise InputError(f"{path / CONFIG_FILE}: transformers {version} does not know the model type {kind!r}.")
    try:
        return transformers.CONFIG_MAPPING[kind].from_dict(dict(config))
    except Exception as error:  # every class of transformers raises its own errors
        raise InputError(f"{path / CONFIG_FILE} cannot be used: {shortened(error)}.") from None


def _build(config: Mapping[str, Any], path: Path, n_tensors: int) -> Any:
    """Build a model without memory for its tensors; one with far more modules than stored tensors is refused."""
    transformers = need_transformers()
    max_modules = MODULES_PER_TENSOR * n_tensors + MODULES_WITHOUT_TENSORS
    parsed = _parse_config(config, path)
    modules = itertools.count()

    def bound(*_: object) -> None:
        if next(modules) > max_modules:
            raise InputError(
                f"{path} has {n_tensors} tensors, but its {CONFIG_FILE} describes a model of more than {max_modules:,}"
                " modules; they do not belong together."
            )

    hook = register_module_module_registration_hook(bound)
    try:
        with torch.device("meta"):
            return transformers.AutoModelForCausalLM.from_config(parsed, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:  # every class of transformers raises its own errors
        raise InputError(f"{path} is not a causal language model of transformers: {shortened(error)}.") from None
    finally:
        hook.remove()


def _check_counts(config: Mapping[str, Any], path: Path) -> None:
    """Raise `InputError` if a configuration has counts of layers, heads or experts that no model has."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            _check_counts(value, path)
        elif COUNT_KEY.search(name) and isinstance(value, int) and value > MAX_COUNT:
            raise InputError(f"{path / CONFIG_FILE}: {name} is {value:,}, more than any model has.")
        elif isinstance(value, int) and not -LARGEST_NUMBER < value < LARGEST_NUMBER:
            raise InputError(f"{path / CONFIG_FILE}: {name} is a number of more than 64 bits.")


def dump_json(data: Mapping[str, Any]) -> str:
    """Return `data` as JSON in the layout of transformers."""
    return json.dumps(data, indent=2) + "\n"
