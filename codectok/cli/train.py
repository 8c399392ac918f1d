"""`codectok train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .console import facts_table, format_duration, say

if TYPE_CHECKING:
    from codectok.train.config import TrainConfig

NAME = "train"
EXAMPLE = "codectok train nano data.shards=shards output=run steps=2000"
SHOWN = ("generator", "discriminator", "codebook_usage", "audio_seconds_per_second")


def run(
    config: Annotated[str, typer.Argument(help="A YAML or JSON file, or the name of a shipped one (nano).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the file's.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check configuration and data, then stop.")] = False,
) -> None:
    """Train a codec from shards; the same command again goes on where it stopped."""
    from codectok.train.config import load_train_config
    from codectok.train.launch import run_training

    settings = load_train_config(config, overrides or [])
    if dry_run:
        _show_plan(settings)
        return
    say(f"Training {settings.codec.name} into {settings.output}, up to step {settings.steps:,}.")

    def on_log(step: int, scalars: dict[str, float]) -> None:
        shown = {name: scalars[name] for name in SHOWN if name in scalars}
        mel = scalars[f"mel_{settings.loss.mel[0].n_fft}"]
        rest = "  ".join(f"{name} {value:.3g}" for name, value in shown.items())
        say(f"step {step:>7,}/{settings.steps:,}  mel {mel:.3f}  {rest}")

    report = run_training(settings, on_log)
    if report.ending == "interrupted":
        say(f"Stopped at step {report.step:,}; the same command goes on from there.")
        raise KeyboardInterrupt
    facts_table(
        "codectok train",
        {
            "ending": f"{report.ending} (max_minutes)" if report.ending == "out of time" else report.ending,
            "step": f"{report.step:,}",
            "codec": report.codec,
            "output": settings.output,
        },
    )


def _show_plan(settings: TrainConfig) -> None:
    import torch

    from codectok.model.network import CodecNetwork
    from codectok.train.adversary import Adversary
    from codectok.train.launch import open_dataset

    dataset = open_dataset(settings)
    with torch.device("meta"):
        network = CodecNetwork(settings.codec)
        adversary = Adversary(settings.discriminators, settings.discriminator_optimizer)
    facts_table(
        "codectok train --dry-run",
        {
            "output": settings.output,
            "data": f"{len(dataset):,} segments, {format_duration(dataset.seconds)}",
            "batch": f"{settings.data.batch_size} x {settings.segment_samples:,} samples",
            "steps": f"{settings.steps:,}",
            "codec": f"{settings.codec.name}, {sum(p.numel() for p in network.parameters()):,} parameters",
            "discriminators": f"{sum(p.numel() for p in adversary.parameters()):,} parameters",
        },
    )
