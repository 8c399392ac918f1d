"""`codectok train`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.errors import InputError
from codectok.formatting import counted, format_duration, megabytes

from .console import ProgressReport, facts_table, progress, say
from .interruption import check_interruption
from .options import AddressOption, TrainingEngine

if TYPE_CHECKING:
    from pathlib import Path

    from codectok.config import CodecConfig
    from codectok.train.config import TrainConfig
    from codectok.train.run.codebook_init import CodebookStart
    from codectok.train.run.dry_run import StageFacts
    from codectok.train.run.metrics_log import LogListener
    from codectok.train.run.run import TrainingReport

NAME = "train"
EXAMPLE = "codectok train nano data.shards=shards output=run steps=2000"
SHOWN = {
    "generator": "generator",
    "discriminator": "discriminator",
    "codebook_usage": "codes used",
    "steps_per_second": "steps/s",
    "audio_seconds_per_second": "audio s/s",
}


def run(
    config: Annotated[
        str,
        typer.Argument(help="A YAML or JSON file, or a shipped one: nano, small, teacher, student, dms."),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the file's.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check configuration, data and memory as one of the ranks, with two steps, then stop."
        ),
    ] = False,
    engine: Annotated[
        TrainingEngine,
        typer.Option(help="What starts the ranks; auto: Ray where there are to be several, or RAY_ADDRESS is set."),
    ] = TrainingEngine.AUTO,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Ranks; one for each GPU by default.", show_default=False)
    ] = None,
    address: AddressOption = None,
    retries: Annotated[
        int, typer.Option(min=0, help="Times that all ranks are started again after one has died (Ray only).")
    ] = 3,
) -> None:
    """Train a codec from shards; the same command again goes on where it stopped."""
    from codectok.train.config import load_stages

    stages = load_stages(config, overrides or [])
    if engine is TrainingEngine.AUTO:
        engine = _engine_for(workers, address)
    if engine is TrainingEngine.LOCAL and (workers or 1) > 1:
        raise InputError("--engine local is one process; leave out --workers, or choose ray or torchrun.")
    if dry_run:
        _show_plans(stages, engine, workers, address)
        return
    if engine is TrainingEngine.TORCHRUN:
        from codectok.train.launch.torchrun import run_under_torchrun

        run_under_torchrun(stages, [NAME, config, *(overrides or []), "--engine", TrainingEngine.LOCAL.value], workers)
        return
    for number, settings in enumerate(stages, 1):
        report = _train(settings, engine, workers, address, retries)
        if number == len(stages):
            return
        if report.to_stop or report.ending == "out of time":
            if _is_first_rank():
                say(f"{stages[number].output} waits; the same command goes on.")
            if report.to_stop:
                raise KeyboardInterrupt
            return


def _engine_for(workers: int | None, address: str | None) -> TrainingEngine:
    import torch

    if "RANK" in os.environ:  # this process is a rank already
        return TrainingEngine.LOCAL
    several = (workers or torch.cuda.device_count()) > 1
    return TrainingEngine.RAY if several or address or "RAY_ADDRESS" in os.environ else TrainingEngine.LOCAL


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _train(
    settings: TrainConfig, engine: TrainingEngine, workers: int | None, address: str | None, retries: int
) -> TrainingReport:
    """One run, to its end; `KeyboardInterrupt` where it was stopped before."""
    from codectok.train.launch.launch import run_training
    from codectok.train.launch.ray_train import RayOptions, run_on_ray

    check_interruption()
    if _is_first_rank():
        say(f"Training {settings.codec.name} into {settings.output}, up to step {settings.steps:,}.")
    with progress(settings.steps, f"train {settings.codec.name}", lines=False) as bar:
        listener = _listener(settings, bar)
        if engine is TrainingEngine.RAY:
            report = run_on_ray(settings, RayOptions(workers, address, retries), listener)
        else:
            report = run_training(settings, listener)
    if report.ending == "interrupted":
        if _is_first_rank():
            say(f"Stopped at step {report.step:,}; the same command goes on from there.")
        raise KeyboardInterrupt
    facts: dict[str, object] = {
        "ending": f"{report.ending} (max_minutes)" if report.ending == "out of time" else report.ending,
        "step": f"{report.step:,}",
        "codec": report.codec,
        "output": settings.output,
    }
    if report.best is not None:
        facts["best at validation"] = report.best
    if _is_first_rank():
        facts_table("codectok train", facts)
    return report


def _listener(settings: TrainConfig, bar: ProgressReport) -> LogListener:
    main = f"mel_{settings.loss.mel[0].n_fft}"

    def on_log(step: int, scalars: dict[str, float]) -> None:
        if main not in scalars:
            found = "  ".join(f"{name.partition('/')[2]} {value:.3g}" for name, value in scalars.items())
            say(f"step {step:>7,}/{settings.steps:,}  validation: {found}")
            return
        rest = "  ".join(f"{label} {scalars[name]:.3g}" for name, label in SHOWN.items() if name in scalars)
        say(f"step {step:>7,}/{settings.steps:,}  mel {scalars[main]:.3f}  {rest}")
        bar.reach(step)

    return on_log


def _show_plans(stages: list[TrainConfig], engine: TrainingEngine, workers: int | None, address: str | None) -> None:
    from codectok.train.distributed import ranks_of_this_machine

    if not _is_first_rank():
        return
    of_cluster = engine is TrainingEngine.RAY and workers is None and (address or "RAY_ADDRESS" in os.environ)
    codecs: dict[Path | None, CodecConfig] = {}
    for settings in stages:
        if engine is TrainingEngine.LOCAL:
            n_ranks = int(os.environ.get("WORLD_SIZE", "1"))
        else:
            n_ranks = ranks_of_this_machine(workers, settings.device)
        assumed = " assumed, as on this machine alone; --workers says how many of the cluster" if of_cluster else ""
        _show_plan(settings, n_ranks, f"{n_ranks:,}{assumed}", codecs.get(settings.init_from))
        codecs[settings.output] = settings.codec


def _show_plan(settings: TrainConfig, n_ranks: int, ranks: str, ancestor: CodecConfig | None) -> None:
    from codectok.train.run.dry_run import rehearse

    check_interruption()
    found = rehearse(settings, n_ranks, ancestor)
    seconds = found.seconds_per_step * settings.steps + (found.start.seconds if found.start else 0.0)
    length = settings.segment_samples / settings.codec.mel.sample_rate
    each, exchange, on_each = "", "", ""
    if n_ranks > 1:
        each, on_each = f", {settings.data.batch_size // n_ranks} on each rank", " on each rank"
        exchange = " beside what ranks exchange"
    facts_table(
        "codectok train --dry-run",
        {
            "output": settings.output,
            **_data_facts(found.stages),
            "ranks": ranks,
            "batch": f"{settings.data.batch_size} x {length:.2f} s{each}, in {counted(settings.accumulation, 'part')}",
            "steps": f"{settings.steps:,}",
            "codec": f"{settings.codec.name}, {found.parameters:,} parameters",
            "discriminators": f"{found.discriminator_parameters:,} parameters",
            **_start_facts(found.start),
            "memory": f"{megabytes(found.peak_bytes)} at most{on_each}",
            "time": f"{found.seconds_per_step:.2f} s a step{exchange}, {format_duration(seconds)} in all",
        },
    )


def _start_facts(start: CodebookStart | None) -> dict[str, object]:
    if start is None:
        return {}
    if start.estimated_bytes is None:
        return {"codebooks' start": format_duration(start.seconds)}
    price = f"about {format_duration(start.seconds)}, and {megabytes(start.estimated_bytes)} for a while"
    return {"codebooks' start": f"{price} (not tried: it takes long on a CPU)"}


def _data_facts(stages: tuple[StageFacts, ...]) -> dict[str, object]:
    facts: dict[str, object] = {}
    for number, stage in enumerate(stages, 1):
        name = "data" if len(stages) == 1 else f"stage {number}"
        facts[name] = f"{stage.segments:,} segments, {format_duration(stage.seconds)}"
        if stage.mixture is not None:
            facts[f"{name}, mixed"] = stage.mixture
    return facts
