"""Finds the folder of a model of transformers, on the local disk or on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from codectok.checkpoints.finding import is_hub_name
from codectok.checkpoints.hub import commit_of_folder, download_snapshot
from codectok.errors import CheckpointError

CONFIG_FILE = "config.json"
EXTRACTOR_FILE = "preprocessor_config.json"
_FILES = (CONFIG_FILE, EXTRACTOR_FILE, "model.safetensors", "model-*.safetensors", "model.safetensors.index.json")


def find_model(name: str) -> tuple[Path, str | None]:
    """Return the local folder of a model, and its commit on the Hub; None if unknown.

    Raises:
        CheckpointError: there is no such model, access needs permission, or the Hub cannot be reached.
    """
    path = Path(name)
    if path.is_dir():
        return path, commit_of_folder(path.resolve())
    if path.exists() or not is_hub_name(name):
        raise CheckpointError(f"There is no folder {name} of a codec of transformers.")
    return download_snapshot(name, _FILES)
