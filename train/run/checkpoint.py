"""Training checkpoints: one folder each, complete or not there."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from codectok.errors import CheckpointError, CodectokError, first_line
from codectok.train.data.loader import is_death_of_a_worker

STATE_FILE = "training.pt"
CONFIG_FILE = "config.yaml"


def save_training_state(folder: Path, step: int, state: dict[str, Any], config: str) -> Path:
    """Write `state` and its configuration as `step-NNNNNNNN` into `folder`, at once or not at all."""
    target = folder / checkpoint_name(step)
    if target.exists():
        return target
    temporary = folder / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with (temporary / CONFIG_FILE).open("w") as file:
            file.write(config)
            os.fsync(file.fileno())
        with (temporary / STATE_FILE).open("wb") as binary:
            torch.save(state, binary)
            os.fsync(binary.fileno())
        temporary.rename(target)
    except RuntimeError as error:
        if is_death_of_a_worker(error):
            raise
        # torch hides the system's error behind its own.
        reason = first_line(error.__context__ or error)
        raise CodectokError(f"The checkpoint {target} could not be written: {reason}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def remove_old_checkpoints(folder: Path, keep: int, best: int | None) -> None:
    """Remove all but the newest `keep` checkpoints and that of the step `best`."""
    for old in _checkpoints(folder)[:-keep]:
        if best is None or old.name != checkpoint_name(best):
            shutil.rmtree(old)


def checkpoint_name(step: int) -> str:
    """What the checkpoint of a step is called."""
    return f"step-{step:08d}"


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step, or None."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def is_training_checkpoint(folder: Path) -> bool:
    """Whether `folder` looks like what `save_training_state` wrote."""
    return (folder / STATE_FILE).is_file()


def load_training_state(checkpoint: Path) -> dict[str, Any]:
    """Read what `save_training_state` wrote, onto the CPU, from where everybody takes what is theirs."""
    path = checkpoint / STATE_FILE
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"{path} cannot be read ({reason}); delete that checkpoint to go on from an earlier one."
        ) from None


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step-\d{8}", path.name))
