"""Compares training steps with plain steps like the reference's: speed, memory, and equal losses.

Usage: python benchmarks/train.py [--config nano] [--device cuda] [--set KEY=VALUE ...] [--rounds 5] [--save]

Both train the same networks from the same weights on the same noise, each in its own process, in turn.
`plain_training.py` lists the differences. Memory is the peak of a step without networks and optimizers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal, cast

import common
import torch
from plain_training import PlainStep
from rich.table import Table
from torch import Tensor
from torch.nn.utils import parametrize

from codectok.device import resolve_device
from codectok.train import TrainConfig, Trainer, load_train_config
from codectok.train.memory import keep_freed_memory

# The plain step runs several power iterations per step, codectok one.
POWER_ITERATIONS = 50

Way = Literal["plain", "ours"]
WAYS: tuple[Way, ...] = ("plain", "ours")
Order = Literal["losses", "peak", "step", "stop"]


@dataclass
class StepProcess:
    """A process that runs plain steps or codectok's on request."""

    orders: Connection

    @classmethod
    def start(cls, way: Way, config: TrainConfig, device: torch.device) -> StepProcess:
        """Start the process; it ends with this one at the latest."""
        here, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        context.Process(target=_serve, args=(there, way, config, device), daemon=True).start()
        return cls(here)

    def losses(self) -> dict[str, float]:
        """Return the losses of a step with converged spectral norms."""
        return cast("dict[str, float]", self._ask("losses"))

    def peak_megabytes(self) -> float | None:
        """Return the peak memory of a step; None if unknown."""
        return cast("float | None", self._ask("peak"))

    def seconds(self) -> float:
        """Return the seconds of a step."""
        return cast(float, self._ask("step"))

    def stop(self) -> None:
        """Stop the process."""
        self.orders.send("stop")

    def _ask(self, order: Order) -> object:
        self.orders.send(order)
        return self.orders.recv()


def _serve(orders: Connection, way: Way, config: TrainConfig, device: torch.device) -> None:
    if way == "ours":
        keep_freed_memory(device)
    trainer = Trainer(config, device)
    # Train the discriminators from the first step on.
    trainer.step = config.discriminators.start_step
    step: Callable[[Tensor], dict] = PlainStep(trainer) if way == "plain" else trainer.train_step
    batch = batch_of(config)
    order: Order
    while (order := orders.recv()) != "stop":
        if order == "losses":
            settle_norms(trainer)
            orders.send({name: float(loss) for name, loss in step(batch).items()})
        elif order == "peak":
            orders.send(common.peak_megabytes(lambda: step(batch), device))
        else:
            started = time.perf_counter()
            step(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            orders.send(time.perf_counter() - started)


@torch.no_grad()
def settle_norms(trainer: Trainer) -> None:
    """Run power iterations until the spectral norms converge."""
    for module in trainer.adversary.train().modules():
        if parametrize.is_parametrized(module, "weight"):
            for _ in range(POWER_ITERATIONS):
                _ = module.weight


def batch_of(config: TrainConfig) -> Tensor:
    """Return noise [B, T] whose level rises over time."""
    generator = torch.Generator().manual_seed(0)
    shape = (config.data.batch_size, config.segment_samples)
    envelope = torch.linspace(0.01, 0.3, shape[1])
    return torch.randn(shape, generator=generator) * envelope


def losses_table(processes: dict[Way, StepProcess]) -> Table:
    """Return the table of the losses of both first steps."""
    found = {way: process.losses() for way, process in processes.items()}
    table = Table(title="Losses of the first step, from the same weights and batch")
    for heading in ("loss", *WAYS, "difference"):
        table.add_column(heading, justify="left" if heading == "loss" else "right")
    for name in found["plain"]:
        plain, ours = (found[way][name] for way in WAYS)
        table.add_row(name, f"{plain:.5f}", f"{ours:.5f}", f"{abs(ours - plain) / max(abs(plain), 1e-9):.1e}")
    return table


def speed_table(processes: dict[Way, StepProcess], config: TrainConfig, rounds: int) -> Table:
    """Time the steps of both in turn, and return the table."""
    peaks = {way: process.peak_megabytes() for way, process in processes.items()}
    taken = [{way: process.seconds() for way, process in processes.items()} for _ in range(rounds)]
    seconds = config.data.batch_size * config.segment_samples / config.codec.mel.sample_rate
    length = config.segment_samples / config.codec.mel.sample_rate
    table = Table(title=f"Steps on {config.data.batch_size} segments of {length:.2f} s, median of {rounds}")
    for heading in ("way", "steps/s", "audio s/s", "x plain", "peak MB"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way in processes:
        median = statistics.median(round_[way] for round_ in taken)
        faster = statistics.median(round_["plain"] / round_[way] for round_ in taken) if "plain" in processes else None
        peak = peaks[way]
        table.add_row(
            way,
            f"{1 / median:.3f}",
            f"{seconds / median:.1f}",
            "-" if faster is None else f"{faster:.2f}",
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
    parser.add_argument("--only-ours", action="store_true", help="do not measure the plain steps")
    parser.add_argument("--save", action="store_true", help="also write the output to benchmarks/results")
    options = parser.parse_args()
    config = load_train_config(options.config, ["data.shards=none", *options.set])
    device = resolve_device(options.device)
    report = common.Report()
    report.console.print(f"{config.codec.name}, {config.precision}\n{common.machine(device)}")
    ways: tuple[Way, ...] = ("ours",) if options.only_ours else WAYS
    processes = {way: StepProcess.start(way, config, device) for way in ways}
    if not options.only_ours:
        report.console.print(losses_table(processes))
    report.console.print(speed_table(processes, config, options.rounds))
    for process in processes.values():
        process.stop()
    if options.save:
        report.save(f"train-{config.codec.name}-{config.precision}-{device.type}")


if __name__ == "__main__":
    main()
