"""AdamW and Muon: which parameters are whose, sizes of updates, states, and ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from codectok import InputError
from codectok.errors import ConfigError
from codectok.train import train
from codectok.train.recipe import OptimizerConfig
from codectok.train.trainer.optimizer import ScheduledOptimizer
from tests.helpers.ranks import own_rank, run_on_ranks
from tests.train.conftest import assert_equal, final_state, tiny_config

MATRICES = ("2.weight", "3.weight")
MUON = "generator_optimizer.method=muon"
RATE = 0.01


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(8, 48, 3, padding=1), nn.Flatten(1), nn.Linear(48 * 20, 64), nn.Linear(64, 16))


def updates(module: nn.Module, config: OptimizerConfig, steps: int = 1, seed: int = 1) -> dict[str, Tensor]:
    """Changes of all parameters by a number of steps with gradients of noise and one strong direction."""
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizer = ScheduledOptimizer(module, config, own_rank())
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for parameter in module.parameters():
            direction = torch.randn(parameter.shape[-1:], generator=generator)
            parameter.grad = torch.randn(parameter.shape, generator=generator) + 3 * direction
        optimizer.step(step)
        assert all(parameter.grad is None for parameter in module.parameters())
    return {name: parameter.detach() - before[name] for name, parameter in module.named_parameters()}


def config(method: str, **values: float) -> OptimizerConfig:
    return OptimizerConfig.model_validate({"method": method, "learning_rate": RATE, "weight_decay": 0, **values})


def test_muon_has_the_weights_of_linear_layers_and_adamw_all_else() -> None:
    adamw, muon = updates(network(), config("adamw")), updates(network(), config("muon"))
    different = {name for name in adamw if not torch.equal(adamw[name], muon[name])}
    assert different == set(MATRICES)


def test_singular_values_of_an_update_are_about_equal() -> None:
    for name in MATRICES:
        values = torch.linalg.svdvals(updates(network(), config("muon"))[name])
        assert values.max() < 2.5 * values.min(), name
        values = torch.linalg.svdvals(updates(network(), config("adamw"))[name])
        assert values.max() > 4 * values.min(), name


def test_updates_are_a_fifth_of_the_learning_rate() -> None:
    """Wide and narrow matrices alike, as AdamW's in the course of a training."""
    for name, update in updates(network(), config("muon")).items():
        if name in MATRICES:
            assert 0.12 * RATE < update.square().mean().sqrt() < 0.28 * RATE, name


def test_learning_rate_and_weight_decay_are_those_of_the_configuration() -> None:
    halved = updates(network(), config("muon", warmup_steps=2))
    whole = updates(network(), config("muon"))
    decayed = updates(network(), config("muon", weight_decay=0.1))
    start = dict(network().named_parameters())
    for name in whole:
        torch.testing.assert_close(halved[name], whole[name] / 2, rtol=1e-3, atol=1e-6)
        expected = whole[name] - 0.1 * RATE * start[name].detach()
        torch.testing.assert_close(decayed[name], expected, rtol=1e-3, atol=1e-6)


def matrices_after_steps() -> dict[str, Tensor]:
    """Parameters of a rank whose gradients differ from those of the others, as by rounding on other hardware."""
    module = network()
    updates(module, config("muon"), steps=3, seed=own_rank().rank)
    return {name: parameter.detach() for name, parameter in module.named_parameters() if name in MATRICES}


def test_matrices_are_the_same_on_all_ranks() -> None:
    first, second = run_on_ranks(matrices_after_steps, 2)
    assert_equal(first, second)


def test_resumed_run_equals_uninterrupted_run(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "whole", MUON, steps=6))
    for steps in (3, 6):
        train(tiny_config(shards, tmp_path / "parts", MUON, steps=steps))
    whole = final_state(tmp_path / "whole")
    assert whole["optimizer"]["muon"]["state"]
    assert_equal(whole, final_state(tmp_path / "parts"))


@pytest.mark.parametrize(("first", "then"), [("adamw", "muon"), ("muon", "adamw")])
def test_resume_from_another_method_is_refused(first: str, then: str, shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "first", f"generator_optimizer.method={first}", steps=2))
    origin = tmp_path / "first" / "checkpoints" / "step-00000002"
    options = (f"generator_optimizer.method={then}", f"resume_from={origin}")
    with pytest.raises(InputError, match=rf"method={first}"):
        train(tiny_config(shards, tmp_path / "then", *options, steps=4))


def test_resume_from_keeps_the_momentum_and_applies_its_own_settings(shards: Path, tmp_path: Path) -> None:
    train(tiny_config(shards, tmp_path / "first", MUON, steps=2))
    options = (MUON, f"resume_from={tmp_path / 'first' / 'checkpoints' / 'step-00000002'}")
    train(tiny_config(shards, tmp_path / "same", *options, steps=4))
    train(tiny_config(shards, tmp_path / "whole", MUON, steps=4))
    assert_equal(final_state(tmp_path / "same")["network"], final_state(tmp_path / "whole")["network"])
    train(tiny_config(shards, tmp_path / "other", *options, "generator_optimizer.weight_decay=0.3", steps=4))
    (group,) = final_state(tmp_path / "other")["optimizer"]["muon"]["param_groups"]
    assert group["weight_decay"] == 0.3


def test_discriminators_have_no_matrices_for_muon(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="discriminator_optimizer"):
        tiny_config(shards, tmp_path, "discriminator_optimizer.method=muon")


def test_state_of_muon_is_checked() -> None:
    module = network()
    optimizer = ScheduledOptimizer(module, config("muon"))
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(0)
    state = optimizer.state_dict()
    again = ScheduledOptimizer(network(), config("muon"))
    again.load_state_dict(state)
    assert_equal(again.state_dict(), state)
    with pytest.raises(ValueError, match="lacks"):
        optimizer.load_state_dict({name: value for name, value in state.items() if name != "muon"})
    with pytest.raises(ValueError, match="Muon"):
        ScheduledOptimizer(network(), config("adamw")).load_state_dict(state)
    for entry, message in (({"momentum_buffer": torch.zeros(3)}, "momentum_buffer"), ({}, "momentum_buffer")):
        broken = {**state["muon"], "state": {**state["muon"]["state"], 0: entry}}
        with pytest.raises((ValueError, KeyError), match=message):
            optimizer.load_state_dict({**state, "muon": broken})


def test_tied_weights_are_stepped_once_and_convolutions_alone_are_refused() -> None:
    tied = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    tied[1].weight = tied[0].weight
    muon = ScheduledOptimizer(tied, config("muon")).muon
    assert muon is not None
    (matrix,) = muon.param_groups[0]["params"]
    assert matrix is tied[0].weight
    with pytest.raises(ValueError, match="linear"):
        ScheduledOptimizer(nn.Conv1d(4, 4, 3), config("muon"))
