"""Training steps beside those of the reference's kind: speed, memory, and the same losses.

Usage: python benchmarks/train.py [--config nano] [--device cuda] [--set KEY=VALUE ...] [--rounds 5] [--save]

Both take steps with the same networks from the same weights on the same noise. What the plain one does in another way
stands in `plain_training.py`. Memory is what a step takes beyond networks and optimizers.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import common
import torch
from plain_training import PlainStep
from rich.table import Table
from torch import Tensor
from torch.nn.utils import parametrize

from codectok.codec import resolve_device
from codectok.train.config import TrainConfig, load_train_config
from codectok.train.trainer import Trainer

# The plain step takes several a step, ours one.
POWER_ITERATIONS = 50
WAYS = {"plain": PlainStep, "ours": lambda trainer: trainer.train_step}


def started(config: TrainConfig, device: torch.device, way: str) -> tuple[Trainer, Callable[[Tensor], dict]]:
    """A trainer whose adversary takes part from the first step on, and its step."""
    trainer = Trainer(config, device)
    trainer.step = config.discriminators.start_step
    return trainer, WAYS[way](trainer)


@torch.no_grad()
def settle_norms(trainer: Trainer) -> None:
    """Let spectral norms come so near to what they are of that another power iteration changes nothing."""
    for module in trainer.adversary.train().modules():
        if parametrize.is_parametrized(module, "weight"):
            for _ in range(POWER_ITERATIONS):
                _ = module.weight


def batch_of(config: TrainConfig) -> Tensor:
    """Noise in which something is loud and something quiet."""
    generator = torch.Generator().manual_seed(0)
    shape = (config.data.batch_size, config.segment_samples)
    envelope = torch.linspace(0.01, 0.3, shape[1])
    return torch.randn(shape, generator=generator) * envelope


def losses_table(config: TrainConfig, device: torch.device) -> Table:
    """Losses of the first step of both."""
    batch = batch_of(config)
    found = {}
    for way in WAYS:
        trainer, step = started(config, device, way)
        settle_norms(trainer)
        found[way] = step(batch)
    table = Table(title="Losses of the first step, from the same weights and batch")
    for heading in ("loss", *WAYS, "difference"):
        table.add_column(heading, justify="left" if heading == "loss" else "right")
    for name in found["plain"]:
        plain, ours = (float(found[way][name]) for way in WAYS)
        table.add_row(name, f"{plain:.5f}", f"{ours:.5f}", f"{abs(ours - plain) / max(abs(plain), 1e-9):.1e}")
    return table


def speed_table(config: TrainConfig, device: torch.device, rounds: int) -> Table:
    """Steps in turn."""
    batch = batch_of(config)
    steps = {way: started(config, device, way)[1] for way in WAYS}
    peaks = {way: common.peak_megabytes(lambda step=step: step(batch), device) for way, step in steps.items()}
    times = common.interleaved({way: lambda step=step: step(batch) for way, step in steps.items()}, rounds)
    seconds = batch.numel() / config.codec.mel.sample_rate
    table = Table(title=f"Steps on {len(batch)} segments of {seconds / len(batch):.2f} s, median of {rounds}")
    for heading in ("way", "steps/s", "audio s/s", "x plain", "peak MB"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way in WAYS:
        taken = statistics.median(times[way])
        peak = peaks[way]
        table.add_row(
            way,
            f"{1 / taken:.3f}",
            f"{seconds / taken:.1f}",
            f"{1 / common.ratio(times, way, 'plain'):.2f}",
            "-" if peak is None else f"{peak:,.0f}",
        )
    return table


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="Speed and memory of training steps.")
    parser.add_argument("--config", default="nano", help="a training configuration")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings that replace the file's")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median is shown")
    parser.add_argument("--save", action="store_true", help="also write what is printed to benchmarks/results")
    options = parser.parse_args()
    config = load_train_config(options.config, ["data.shards=none", *options.set])
    device = resolve_device(options.device)
    report = common.Report()
    report.console.print(f"{config.codec.name}, {config.precision}\n{common.machine(device)}")
    report.console.print(losses_table(config, device))
    report.console.print(speed_table(config, device, options.rounds))
    if options.save:
        report.save(f"train-{config.codec.name}-{config.precision}-{device.type}")


if __name__ == "__main__":
    main()
