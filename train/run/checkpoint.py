"""Training checkpoints: one folder per step, complete or absent."""

from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from codectok.atomic import remove_leftovers, replacing_folder
from codectok.errors import CheckpointError, CodectokError, first_line
from codectok.train.data.workers import is_worker_death

STATE_FILE = "training.pt"
CONFIG_FILE = "config.yaml"


def save_training_state(folder: Path, step: int, state: dict[str, Any], config: str) -> Path:
    """Write `state` and the configuration atomically to `step-NNNNNNNN` in `folder`, unless it exists.

    Raises:
        CodectokError: it cannot be written.
    """
    target = folder / checkpoint_name(step)
    if target.exists():
        return target
    remove_leftovers(target)
    try:
        with replacing_folder(target) as temporary:
            (temporary / CONFIG_FILE).write_text(config)
            with (temporary / STATE_FILE).open("wb") as file:
                torch.save(state, file)
    except RuntimeError as error:
        if is_worker_death(error):
            raise
        # torch hides the system's error behind its own.
        reason = first_line(error.__context__ or error)
        raise CodectokError(f"The checkpoint {target} could not be written: {reason}.") from None
    return target


def remove_old_checkpoints(folder: Path, keep: int, best: int | None) -> None:
    """Remove all checkpoints except the newest `keep` and the one of step `best`."""
    for old in _checkpoints(folder)[:-keep]:
        if best is None or old.name != checkpoint_name(best):
            shutil.rmtree(old)


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint of `step`."""
    return f"step-{step:08d}"


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step, None if there is none."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def is_training_checkpoint(folder: Path) -> bool:
    """True if `folder` was written by `save_training_state`."""
    return (folder / STATE_FILE).is_file()


def load_training_state(checkpoint: Path) -> dict[str, Any]:
    """Load the state from `save_training_state` onto the CPU.

    Raises:
        CheckpointError: it is damaged.
    """
    path = checkpoint / STATE_FILE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"{path} cannot be read ({reason}); delete that checkpoint to resume from an earlier one."
        ) from None
    return state


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step-\d{8}", path.name))
