"""`codectok train`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.errors import InputError
from codectok.formatting import format_duration, megabytes

from .console import ProgressReport, facts_table, progress, say, warn
from .interruption import check_interruption
from .options import AddressOption, LogDirOption, TrainingEngine, refuse_ray_options

if TYPE_CHECKING:
    from pathlib import Path

    from codectok.config import CodecConfig
    from codectok.train import TrainConfig, TrainingReport
    from codectok.train.launch.ray_train import RayOptions
    from codectok.train.run.codebook_init import CodebookInitCost
    from codectok.train.run.dry_run import StageSummary
    from codectok.train.run.metrics_log import MetricsCallback

NAME = "train"
EXAMPLE = "codectok train nano data.shards=shards output=run steps=2000"
RAY_OPTIONS = ("address", "retries", "min_workers", "wait_minutes")
# Metrics shown at every logged step, and their labels.
LABELS = {
    "generator": "generator",
    "discriminator": "discriminator",
    "codebook_usage": "codes used",
    "steps_per_second": "steps/s",
    "audio_seconds_per_second": "audio s/s",
}


def run(
    context: typer.Context,
    config: Annotated[
        str,
        typer.Argument(help="A YAML or JSON file, or the name of a built-in one: nano, universal-small, small, dms."),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that override the file.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check configuration, data and memory with two steps of one rank, then stop."),
    ] = False,
    engine: Annotated[
        TrainingEngine,
        typer.Option(help="How ranks are started; auto: Ray if there are several or RAY_ADDRESS is set."),
    ] = TrainingEngine.AUTO,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of ranks; by default one per GPU.", show_default=False)
    ] = None,
    address: AddressOption = None,
    retries: Annotated[
        int, typer.Option(min=0, help="How often all ranks are started again after one has died (Ray only).")
    ] = 3,
    log_dir: LogDirOption = None,
    min_workers: Annotated[
        int, typer.Option(min=1, help="Smallest number of ranks to continue with after machines are lost (Ray only).")
    ] = 1,
    wait_minutes: Annotated[
        float, typer.Option(min=0, help="How long a lost machine is waited for before fewer ranks continue (Ray only).")
    ] = 5.0,
) -> None:
    """Train a codec from shards; run the same command again to resume."""
    from codectok.train.config import load_stages
    from codectok.train.launch.ray_train import RayOptions

    if engine in (TrainingEngine.LOCAL, TrainingEngine.TORCHRUN):
        refuse_ray_options(context, engine.value, RAY_OPTIONS)
    stages = load_stages(config, overrides or [])
    if engine is TrainingEngine.AUTO:
        engine = _engine_for(workers, address)
    if engine is TrainingEngine.LOCAL and (workers or 1) > 1:
        raise InputError("--engine local runs a single process; leave out --workers, or choose ray or torchrun.")
    if dry_run:
        _dry_runs(stages, engine, workers, address)
        return
    if engine is TrainingEngine.TORCHRUN:
        from codectok.train.launch.torchrun import run_under_torchrun

        logged = [] if log_dir is None else ["--log-dir", log_dir]
        local = ["--engine", TrainingEngine.LOCAL.value, *logged]
        run_under_torchrun(stages, [NAME, config, *(overrides or []), *local], workers)
        return
    options = RayOptions(workers, address, retries, min_workers, 60 * wait_minutes)
    for number, settings in enumerate(stages, 1):
        report = _train(settings, engine, options, log_dir)
        if number == len(stages):
            return
        if report.stop_requested or report.ending == "out of time":
            if _is_first_rank():
                say(f"{stages[number].output} not started. Run the same command to continue.")
            if report.stop_requested:
                raise KeyboardInterrupt
            return


def _engine_for(workers: int | None, address: str | None) -> TrainingEngine:
    import torch

    if "RANK" in os.environ:  # this process is a rank of torchrun
        return TrainingEngine.LOCAL
    several = (workers or torch.cuda.device_count()) > 1
    return TrainingEngine.RAY if several or address or "RAY_ADDRESS" in os.environ else TrainingEngine.LOCAL


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _train(settings: TrainConfig, engine: TrainingEngine, options: RayOptions, log_dir: str | None) -> TrainingReport:
    """Make one run, and raise `KeyboardInterrupt` if it is interrupted."""
    from codectok.train import train
    from codectok.train.launch.ray_train import train_on_ray
    from codectok.train.launch.watching import watched

    check_interruption()
    if _is_first_rank():
        say(f"Training {settings.codec.name} into {settings.output}, up to step {settings.steps:,}.")
    title = f"train {settings.codec.name}"
    # Other ranks of torchrun log nothing.
    with (
        progress(settings.steps, title, lines=False) as bar,
        watched(settings, log_dir if _is_first_rank() else None, warn) as events,
    ):
        on_metrics = _metrics_callback(settings, bar)
        if engine is TrainingEngine.RAY:
            report = train_on_ray(settings, options, on_metrics, events)
        else:
            report = train(settings, on_metrics, events=events)
        events.totals = lambda: {"ending": report.ending, "step": report.step}
    if report.ending == "interrupted":
        if _is_first_rank():
            say(f"Stopped at step {report.step:,}. Run the same command to resume.")
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


def _metrics_callback(settings: TrainConfig, bar: ProgressReport) -> MetricsCallback:
    from codectok.train.run.divergence import mel_metric

    mel = mel_metric(settings)

    def on_metrics(step: int, metrics: dict[str, float]) -> None:
        if mel not in metrics:
            found = "  ".join(f"{name.partition('/')[2]} {value:.3g}" for name, value in metrics.items())
            say(f"step {step:>7,}/{settings.steps:,}  validation: {found}")
            return
        rest = "  ".join(f"{label} {metrics[name]:.3g}" for name, label in LABELS.items() if name in metrics)
        say(f"step {step:>7,}/{settings.steps:,}  mel {metrics[mel]:.3f}  {rest}")
        bar.set_done(step)

    return on_metrics


def _dry_runs(stages: list[TrainConfig], engine: TrainingEngine, workers: int | None, address: str | None) -> None:
    from codectok.train.distributed import local_rank_count

    if not _is_first_rank():
        return
    unknown_cluster = engine is TrainingEngine.RAY and workers is None and (address or "RAY_ADDRESS" in os.environ)
    codecs: dict[Path | None, CodecConfig] = {}
    for settings in stages:
        if engine is TrainingEngine.LOCAL:
            n_ranks = int(os.environ.get("WORLD_SIZE", "1"))
        else:
            n_ranks = local_rank_count(workers, settings.device)
        assumed = " assumed, as on this machine; set --workers to the number of the cluster" if unknown_cluster else ""
        _show_dry_run(settings, n_ranks, f"{n_ranks:,}{assumed}", codecs.get(settings.init_from))
        codecs[settings.output] = settings.codec


def _show_dry_run(settings: TrainConfig, n_ranks: int, ranks: str, initial_config: CodecConfig | None) -> None:
    from codectok.train import dry_run

    check_interruption()
    found = dry_run(settings, n_ranks, initial_config)
    seconds = found.seconds_per_step * settings.steps + (found.codebook_init.seconds if found.codebook_init else 0.0)
    length = settings.segment_samples / settings.codec.mel.sample_rate
    each, communication, on_each = "", "", ""
    if n_ranks > 1:
        each, on_each = f", {settings.data.batch_size // n_ranks} on each rank", " on each rank"
        communication = " without communication"
    facts_table(
        "codectok train --dry-run",
        {
            "output": settings.output,
            **_data_facts(found.stages),
            "ranks": ranks,
            "batch": f"{settings.data.batch_size} x {length:.2f} s{each}",
            "microbatches": f"{settings.accumulation}",
            "steps": f"{settings.steps:,}",
            "codec": f"{settings.codec.name}, {found.parameters:,} parameters",
            "discriminators": f"{found.discriminator_parameters:,} parameters",
            **_codebook_facts(found.codebook_init),
            "memory": f"{megabytes(found.peak_bytes)} at most{on_each}",
            "time": f"{found.seconds_per_step:.2f} s per step{communication}, {format_duration(seconds)} in total",
        },
    )


def _codebook_facts(cost: CodebookInitCost | None) -> dict[str, object]:
    if cost is None:
        return {}
    if cost.estimated_bytes is None:
        return {"codebook init": format_duration(cost.seconds)}
    estimate = f"about {format_duration(cost.seconds)} and {megabytes(cost.estimated_bytes)} for a while"
    return {"codebook init": f"{estimate} (estimated: it takes long on a CPU)"}


def _data_facts(stages: tuple[StageSummary, ...]) -> dict[str, object]:
    facts: dict[str, object] = {}
    for number, stage in enumerate(stages, 1):
        name = "data" if len(stages) == 1 else f"stage {number}"
        facts[name] = f"{stage.segments:,} segments, {format_duration(stage.seconds)}"
        if stage.mixture is not None:
            facts[f"{name}, mixed"] = stage.mixture
    return facts
