"""Files of a packaged codec: its configuration and its weights, in a local folder or on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from codectok.checkpoints.hub import HubRepository
from codectok.config import load_mapping
from codectok.errors import CheckpointError, ConfigError, shortened

CONFIG_FILE = "config.json"
# Parts of `organisation/name`.
HUB_PARTS = 2


@dataclass(frozen=True)
class ModelFiles:
    """Configuration and weights of a model.

    Attributes:
        name: name on the Hub, or of the local folder, as token tables record it.
        config: contents of `config.json`.
        weights: file of the weights.
        revision: commit on the Hub; None for a local folder.
    """

    name: str
    config: dict[str, Any]
    weights: Path
    revision: str | None = None

    @classmethod
    def find(cls, name: str, weight_files: Sequence[str]) -> ModelFiles:
        """Find the files of a model.

        Args:
            name: a folder with `config.json` and a file of weights, that file, or `organisation/name` on the Hub (with
                `#REVISION` for a commit, branch or tag), followed by a folder within it where there is one.
            weight_files: possible names of the file of weights; the first one that exists is used.

        Raises:
            CheckpointError: a file is missing or not valid, or cannot be downloaded.
        """
        path, revision, shown = Path(name), None, Path(name).resolve().name
        if path.is_file():
            return cls(path.resolve().parent.name, _config(path.parent), path)
        if not path.is_dir():
            path, shown, revision = _downloaded(name, weight_files)
        for file in weight_files:
            if (path / file).is_file():
                return cls(shown, _config(path), path / file, revision)
        raise CheckpointError(f"{name} holds no weights; expected is {' or '.join(weight_files)}.")

    def load_weights(self) -> dict[str, Tensor]:
        """Read the weights, and nothing but tensors.

        Raises:
            CheckpointError: the file is damaged, or holds anything else.
        """
        try:
            if self.weights.suffix == ".safetensors":
                return load_file(self.weights)
            loaded = torch.load(self.weights, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged stream of pickle instructions may raise anything
            if isinstance(error, OSError) and error.errno is not None:
                raise CheckpointError(f"{self.weights} cannot be read: {error.strerror}.") from None
            raise CheckpointError(f"{self.weights} does not hold weights alone ({shortened(error)}).") from None
        if not isinstance(loaded, dict) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
            raise CheckpointError(f"{self.weights} does not hold the tensors of one model by name.")
        return loaded


def import_package(package: str) -> ModuleType:
    """Import the package of a codec.

    Raises:
        CheckpointError: it is not installed, or cannot be imported.
    """
    try:
        return import_module(package)
    except ImportError as error:
        if error.name == package:
            raise CheckpointError(f"Codecs {package}:... need a package: pip install 'codectok[{package}]'.") from None
        raise CheckpointError(f"The package {package} cannot be imported: {shortened(error)}.") from None
    except Exception as error:  # packages of other makers raise anything when a dependency has changed
        raise CheckpointError(f"The package {package} cannot be imported: {shortened(error)}.") from None


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{folder / CONFIG_FILE} is missing; it describes the model.")
    try:
        return load_mapping(folder / CONFIG_FILE)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def _downloaded(name: str, weight_files: Sequence[str]) -> tuple[Path, str, str]:
    """Download a model; returns its folder, its name without the revision, and its commit."""
    parts = name.split("/")
    # If the first part of the name is a local folder, assume a mistyped path instead of a Hub name.
    if len(parts) < HUB_PARTS or not all(parts) or Path(parts[0]).exists():
        raise CheckpointError(f"There is no codec folder {name}.")
    within = "".join(f"{part}/" for part in parts[HUB_PARTS:])
    repository = HubRepository.open("/".join(parts[:HUB_PARTS]))
    found = [f"{within}{file}" for file in weight_files if f"{within}{file}" in repository.files]
    folder = repository.download([f"{within}{CONFIG_FILE}", *found[:1]])
    return folder / within, "/".join([repository.name, *parts[HUB_PARTS:]]), repository.commit
