"""Resuming from a checkpoint of another run (`resume_from`), with the configuration of this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codectok.errors import InputError
from codectok.train.trainer.trainer import Trainer

from .checkpoint import checkpoint_errors, is_training_checkpoint, load_training_state


def check_resume_checkpoint(checkpoint: Path) -> None:
    """Check that `checkpoint` is a training checkpoint.

    Raises:
        InputError: it is not.
    """
    if not is_training_checkpoint(checkpoint):
        raise InputError(
            f"{checkpoint} (resume_from) is not a training checkpoint; give a folder such as"
            " run/checkpoints/step-00001000."
        )


def resume_from_checkpoint(trainer: Trainer, checkpoint: Path) -> dict[str, Any]:
    """Load the state of another run into `trainer`: networks, codebooks, moments, averages and the step.

    Optimizer settings other than `method`, and weight averaging, follow the configuration of `trainer`.

    Returns:
        The loaded state.

    Raises:
        InputError: tensors differ in shape, or the other run has already made `trainer.config.steps` steps.
    """
    state = load_training_state(checkpoint)
    wanted = trainer.config.steps
    if state["step"] >= wanted:
        raise InputError(
            f"{checkpoint} (resume_from) is at step {state['step']}, and steps={wanted}; set steps above that."
        )
    for name, module in (("network", trainer.network), ("adversary", trainer.adversary)):
        own, other = _shapes(module.state_dict()), _shapes(state[name])
        different = sorted(key for key in own.keys() | other.keys() if own.get(key) != other.get(key))
        if different:
            key = different[0]
            raise InputError(
                f"{checkpoint} (resume_from) has another {name} than the configuration: {key} is"
                f" {other.get(key, 'missing')} in the checkpoint, and {own.get(key, 'missing')} here; change only"
                " settings that keep all shapes."
            )
    method, before = trainer.config.generator_optimizer.method, "muon" if "muon" in state["optimizer"] else "adamw"
    if method != before:
        raise InputError(
            f"{checkpoint} (resume_from) is of a run with generator_optimizer.method={before}, and this run has"
            f" {method}; start from the codec of that run instead (init_from)."
        )
    only_decoder = bool(trainer.config.train_only)
    if only_decoder != (state.get("same_codes") is not None):
        before, now = ("all", "the decoder only") if only_decoder else ("the decoder only", "all")
        raise InputError(
            f"{checkpoint} (resume_from) is of a run that trains {before}, and this run trains {now} (train_only);"
            " start from the codec of that run instead (init_from)."
        )
    state["average"] = state["average"] or {"steps": 0, "averages": state["network"]}
    with checkpoint_errors(checkpoint):
        trainer.load_state_dict(state, own_settings=True)
    return state


def _shapes(state: dict[str, Any]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in state.items()}
