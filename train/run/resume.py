"""Going on from a checkpoint of another run, with a recipe of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codectok.errors import InputError
from codectok.train.trainer.trainer import Trainer

from .checkpoint import is_training_checkpoint, load_training_state


def check_origin(checkpoint: Path) -> None:
    """Refuse a folder that is no checkpoint of a run with an `InputError`."""
    if not is_training_checkpoint(checkpoint):
        raise InputError(
            f"{checkpoint} (resume_from) is no checkpoint of a training run; give a folder such as"
            " run/checkpoints/step-00001000."
        )


def take_over(trainer: Trainer, checkpoint: Path) -> dict[str, Any]:
    """Give `trainer` the whole state of another run: networks, codebooks, moments, averages and the step.

    How the optimizers go on from there is for `trainer`'s own configuration to say, and whether weights are averaged.

    Returns:
        That state.

    Raises:
        InputError: it has other tensors than `trainer`, or has made as many steps as that is to make.
    """
    state = load_training_state(checkpoint)
    wanted = trainer.config.steps
    if state["step"] >= wanted:
        raise InputError(f"{checkpoint} (resume_from) has made {state['step']} steps, and steps={wanted}; set more.")
    for part, module in (("network", trainer.network), ("adversary", trainer.adversary)):
        own, other = _shapes(module.state_dict()), _shapes(state[part])
        different = sorted(name for name in own.keys() | other.keys() if own.get(name) != other.get(name))
        if different:
            name = different[0]
            raise InputError(
                f"{checkpoint} (resume_from) has another {part} than is to be trained: {name} is"
                f" {other.get(name, 'not there')} in it, and {own.get(name, 'not there')} here; only settings that"
                " change no shape can be others."
            )
    state["average"] = state["average"] or {"steps": 0, "averages": state["network"]}
    optimizers = (("optimizer", trainer.optimizer), ("adversary_optimizer", trainer.adversary.optimizer))
    for part, optimizer in optimizers:
        state[part]["param_groups"] = optimizer.state_dict()["param_groups"]
    trainer.load_state_dict(state)
    return state


def _shapes(state: dict[str, Any]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in state.items()}
