"""Training checkpoints: one folder per step, complete or absent."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from codectok.atomic import remove_folder, replacing_folder
from codectok.checkpoints.native import check_finite_tensors
from codectok.errors import CheckpointError, CodectokError, first_line
from codectok.train.data.workers import is_worker_death

STATE_FILE = "training.pt"
HASH_FILE = "training.sha256"
CONFIG_FILE = "config.yaml"
REASON_LENGTH = 200
LARGEST_NUMBER = 1 << 62
# Types of the entries of a state.
ENTRIES: Mapping[str, tuple[type, ...]] = {
    "step": (int,),
    "network": (Mapping,),
    "optimizer": (Mapping,),
    "adversary": (Mapping,),
    "adversary_optimizer": (Mapping,),
    "average": (Mapping, type(None)),
    "position": (int,),
    "data_hash": (str,),
    "best": (tuple, list, type(None)),
    "validation": (str, type(None)),
    "log": (Mapping,),
}


def save_training_state(folder: Path, step: int, state: dict[str, Any], config: str) -> Path:
    """Write `state` and the configuration atomically to `step-NNNNNNNN` in `folder`, unless it exists.

    Raises:
        CodectokError: it cannot be written.
    """
    target = folder / checkpoint_name(step)
    if target.exists():
        return target
    try:
        with replacing_folder(target) as temporary:
            (temporary / CONFIG_FILE).write_text(config)
            with (temporary / STATE_FILE).open("wb") as file:
                torch.save(state, file)
            (temporary / HASH_FILE).write_text(_hash_of(temporary / STATE_FILE) + "\n")
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
            remove_folder(old)


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint of `step`."""
    return f"step-{step:08d}"


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step, None if there is none."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def saved_steps(folder: Path) -> tuple[int, ...]:
    """Steps of the checkpoints in `folder`, in order."""
    return tuple(step_of(path) for path in _checkpoints(folder))


def step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint, by its name."""
    return int(checkpoint.name.removeprefix("step-"))


def is_training_checkpoint(folder: Path) -> bool:
    """True if `folder` was written by `save_training_state`."""
    return (folder / STATE_FILE).is_file()


def load_training_state(checkpoint: Path) -> dict[str, Any]:
    """Load the state from `save_training_state` onto the CPU.

    Checkpoints of versions before 0.2 have no hash; of these only the structure is checked.

    Raises:
        CheckpointError: it is damaged.
    """
    path = checkpoint / STATE_FILE
    try:
        hash_file = checkpoint / HASH_FILE
        if hash_file.is_file() and hash_file.read_bytes().strip() != _hash_of(path).encode():
            raise ValueError("its hash is another than when it was written")
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_entries(state)
    except Exception as error:  # a damaged stream of pickle instructions may raise anything
        raise _damaged(path, error) from None
    loaded: dict[str, Any] = state
    return loaded


@contextmanager
def checkpoint_errors(checkpoint: Path) -> Iterator[None]:
    """Report a state of other shapes or with missing entries, which is used in the context, as a `CheckpointError`."""
    try:
        yield
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise _damaged(checkpoint / STATE_FILE, error) from None


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = f"it has no entry {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:REASON_LENGTH]
    return CheckpointError(f"{path} cannot be read ({reason}); delete that checkpoint to resume from an earlier one.")


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_entries(state: object) -> None:
    """Raise a `ValueError` that names the first missing entry, or the first one of another type."""
    if not isinstance(state, Mapping):
        raise ValueError(f"it holds a {type(state).__name__}")
    _check_layouts(state)
    for name, types in ENTRIES.items():
        if name not in state:
            raise ValueError(f"it has no entry {name!r}")
        if not isinstance(state[name], types) or isinstance(state[name], bool):
            raise ValueError(f"its entry {name!r} is a {type(state[name]).__name__}")
    best = state["best"]
    if best is not None and not (len(best) == 2 and isinstance(best[0], float) and isinstance(best[1], int)):
        raise ValueError("its entry 'best' is not an error and a step")
    for name in ("step", "position"):
        if not 0 <= state[name] <= LARGEST_NUMBER:
            raise ValueError(f"its entry {name!r} is {state[name]}")
    for name in ("network", "adversary"):
        for key, tensor in state[name].items():
            if not isinstance(tensor, torch.Tensor):
                raise ValueError(f"{key!r} in its entry {name!r} is a {type(tensor).__name__}")
        check_finite_tensors(state[name], f"its entry {name!r}")


def _check_layouts(state: object) -> None:
    """Raise a `ValueError` if a tensor anywhere in `state` is sparse or quantized, which training never writes."""
    if isinstance(state, torch.Tensor):
        if state.layout != torch.strided or state.is_quantized:
            raise ValueError(f"it holds a tensor of the kind {state.layout}")
        return
    for value in state.values() if isinstance(state, Mapping) else state if isinstance(state, list | tuple) else ():
        _check_layouts(value)


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"step-\d{8}", path.name))
