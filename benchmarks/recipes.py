"""Compares recipes of a small codec at equal cost: each is trained for the same CPU time, then all are evaluated.

    python scripts/universal_audio.py universal      # and shard its two manifests, as its docstring says
    python benchmarks/recipes.py universal recipes --minutes 15 --save

The number of steps of a recipe follows from the CPU time of one of its steps, so that other work on the machine does
not change it. Learning rates fall to zero over the steps of each run. A second call resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import common
from rich.table import Table
from torch import Tensor

from codectok import Codec
from codectok.evaluation.summary import EvaluationSummary

BASE = Path(__file__).with_suffix(".yaml")
# The first steps of a run are slower: memory is allocated, and codebooks are initialized.
FIRST_STEPS, TIMED_STEPS = 3, 8
STEPS_BEFORE_ADVERSARY = 0.7

EMA = (
    "codec.quantizer={type: grvq, codebook_size: 4096, codebook_dim: 32, ema_decay: 0.95}",
    "loss.commitment=10.0",
)
TEACHER = (
    "codec.quantizer={type: grvq, n_residuals: 4, codebook_size: 1024, codebook_dim: 32, ema_decay: 0.95}",
    "loss.commitment=10.0",
)
# Effective settings of DistilCodec, at the size of the base: a wide EMA codebook with decay 0.8 and
# without expiry, HiFi-GAN, adversary from the first step, a constant learning rate.
REFERENCE = (
    "codec.quantizer={type: grvq, codebook_size: 4096, codebook_dim: 256, ema_decay: 0.8, expiry_share: 0.0}",
    "codec.decoder={initial_channels: 192, upsample_rates: [8, 4, 2, 2, 2], upsample_kernel_sizes: [16, 12, 4, 4, 4]}",
    "loss.mel=[{n_fft: 1024, hop_length: 256, weight: 45.0}, {n_fft: 2048, hop_length: 512, weight: 1.0},"
    " {n_fft: 512, hop_length: 128, weight: 1.0}]",
    "loss.commitment=10.0",
    "discriminators.start_step=0",
    "generator_optimizer={learning_rate: 2.0e-4, betas: [0.5, 0.9]}",
    "discriminator_optimizer={learning_rate: 2.0e-4, betas: [0.5, 0.9]}",
    "weight_average=null",
)


@dataclass(frozen=True)
class Recipe:
    """A recipe, as changes of the base.

    Attributes:
        name: in the table, and of its folder.
        changes: `KEY=VALUE` of `codectok train`.
        teacher: changes of a teacher that takes half of the time; the recipe then starts with its encoder and decoder.
        adversary: the adversary joins late in the run.
        constant_rate: the learning rate does not fall.
    """

    name: str
    changes: tuple[str, ...] = ()
    teacher: tuple[str, ...] | None = None
    adversary: bool = False
    constant_rate: bool = False


RECIPES = (
    Recipe("fsq-4096"),
    Recipe("adversary", adversary=True),
    Recipe("reference", REFERENCE, constant_rate=True),
    Recipe("ema-4096", EMA),
    Recipe("simvq-4096", ("codec.quantizer={type: simvq, codebook_size: 4096, codebook_dim: 64}",)),
    Recipe("teacher-ema", EMA, teacher=TEACHER),
    Recipe("augmented", (*EMA, "data.augmentation={}")),
    Recipe("envelope", (*EMA, "loss.envelope=200.0")),
    Recipe("ema-1024", (*EMA, "codec.quantizer.codebook_size=1024")),
    Recipe("ema-8192", (*EMA, "codec.quantizer.codebook_size=8192")),
    Recipe("smaller", (*EMA, "codec.encoder.dims=[64, 96, 128, 160]", "codec.decoder.dim=144")),
)


def main() -> None:
    """Train the recipes that are not trained yet, evaluate all, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "audio", type=Path, help="folder of universal_audio.py, with shards-train and shards-validation"
    )
    parser.add_argument("output", type=Path, help="folder for the runs")
    parser.add_argument("--minutes", type=float, default=15.0, help="CPU time of each recipe")
    parser.add_argument("--share", type=float, default=0.2, help="share of the validation clips to evaluate")
    parser.add_argument("--only", help="names of recipes, separated by commas")
    parser.add_argument("--save", action="store_true", help="also write the table to benchmarks/results")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else [recipe.name for recipe in RECIPES]
    recipes = [recipe for recipe in RECIPES if recipe.name in names]
    if len(recipes) < len(names):
        parser.error(f"known recipes are {', '.join(recipe.name for recipe in RECIPES)}")
    options.output.mkdir(parents=True, exist_ok=True)
    runs = [_train(recipe, options.audio.resolve(), options.output, options.minutes) for recipe in recipes]
    summary = _evaluate(recipes, options.audio, options.output, options.share)
    report = common.Report()
    report.console.print(_table(recipes, runs, summary, options.output, options.minutes))
    if options.save:
        report.save("recipes-cpu")


def _train(recipe: Recipe, audio: Path, output: Path, minutes: float) -> dict[str, float]:
    """Train a recipe in its folder, or continue; returns its steps."""
    folder, teacher = output / recipe.name, output / f"{recipe.name}-teacher"
    changes = (*_shards(audio), *recipe.changes)
    budget = 60 * minutes / (1 if recipe.teacher is None else 2)
    steps: dict[str, float] = {}
    if recipe.teacher is not None:
        teacher_changes = (*_shards(audio), *recipe.teacher)
        steps["teacher_steps"] = _planned_steps(teacher, teacher_changes, budget)
        _run(teacher, teacher_changes, steps["teacher_steps"])
        changes += (f"init_from={teacher}",)
    steps["steps"] = _planned_steps(folder, changes, budget, recipe.adversary)
    if recipe.adversary:
        changes += (f"discriminators.start_step={int(STEPS_BEFORE_ADVERSARY * steps['steps'])}",)
    _run(folder, changes, steps["steps"], not recipe.constant_rate)
    return steps


def _planned_steps(folder: Path, changes: Sequence[str], seconds: float, adversary: bool = False) -> int:
    """Number of steps that take `seconds`; stored, since a run that continues has the steps it began with."""
    record = folder.with_name(f"{folder.name}.json")
    if not record.exists():
        step = _step_seconds(folder, changes)
        if adversary:
            with_adversary = _step_seconds(folder, (*changes, "discriminators.start_step=0"))
            step = STEPS_BEFORE_ADVERSARY * step + (1 - STEPS_BEFORE_ADVERSARY) * with_adversary
        record.write_text(json.dumps({"step_seconds": step, "steps": max(1, int(seconds / step))}))
    return int(json.loads(record.read_text())["steps"])


def _shards(audio: Path) -> tuple[str, ...]:
    weights = {"speech": 6, "music": 2, "effects": 2}
    sources = [
        f"{{shards: {audio / 'shards-train'}, category: {category}, weight: {weight}}}"
        for category, weight in weights.items()
    ]
    return (f"data.sources=[{', '.join(sources)}]",)


def _step_seconds(folder: Path, changes: Sequence[str]) -> float:
    """CPU time of one step, from the difference of two short runs."""
    seconds = []
    for steps in (FIRST_STEPS, FIRST_STEPS + TIMED_STEPS):
        trial = folder.with_name(f"{folder.name}-trial")
        shutil.rmtree(trial, ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        _codectok("train", str(BASE), *changes, f"output={trial}", f"steps={steps}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        shutil.rmtree(trial)
    if seconds[1] <= seconds[0]:
        raise SystemExit(f"The steps of {folder.name} could not be timed; try again on a machine with less to do.")
    return (seconds[1] - seconds[0]) / TIMED_STEPS


def _run(folder: Path, changes: Sequence[str], steps: float, cosine: bool = True) -> None:
    schedule = (f"generator_optimizer.cosine_steps={steps:.0f}",) if cosine else ()
    _codectok("train", str(BASE), *changes, *schedule, f"output={folder}", f"steps={steps:.0f}")


def _evaluate(recipes: Sequence[Recipe], audio: Path, output: Path, share: float) -> EvaluationSummary:
    """Evaluate the codecs of all recipes on the same share of the validation set."""
    folder = output / "evaluation"
    shutil.rmtree(folder, ignore_errors=True)
    codecs = [f"--codec={recipe.name}={output / recipe.name / 'codec'}" for recipe in recipes]
    options = ["--metrics=mel,stoi", "--controls=none", "--no-stability", "--engine=local", f"--share={share}"]
    _codectok("evaluate", str(audio / "shards-validation"), str(folder), *codecs, *options)
    return EvaluationSummary.model_validate_json((folder / "summary.json").read_bytes())


def _codectok(*arguments: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "codectok", *arguments], env=environment, check=True)


def _table(
    recipes: Sequence[Recipe],
    runs: Sequence[dict[str, float]],
    summary: EvaluationSummary,
    output: Path,
    minutes: float,
) -> Table:
    everything = summary.categories["all"]
    amount = f"{everything.clips:,} clips, {everything.seconds / 60:.0f} min"
    title = f"{minutes:g} minutes of one core for each recipe; validation: {amount}; M: million weights"
    table = Table(title=title, title_justify="left")
    table.add_column("recipe", no_wrap=True)
    columns = ("M", "steps", "mel, all", "mel, speech", "mel, music", "mel, effects", "STOI, speech", "used")
    for heading in (*columns, "bits"):
        table.add_column(heading, justify="right")
    for recipe, run in zip(recipes, runs, strict=True):
        parameters = sum(tensor.numel() for tensor in _parameters(output / recipe.name / "codec"))
        steps = f"{run['steps']:,.0f}"
        if "teacher_steps" in run:
            steps = f"{run['teacher_steps']:,.0f} + {steps}"
        means = [_mean(summary, category, recipe.name, "mel", 2) for category in ("all", "speech", "music", "effects")]
        means.append(_mean(summary, "speech", recipe.name, "stoi", 3))
        (codebook,) = everything.codes[recipe.name].codebooks
        codes = f"{codebook.used_share:.1%}", f"{codebook.entropy:.2f}"
        table.add_row(recipe.name, f"{parameters / 1e6:.1f}", steps, *means, *codes)
    return table


def _parameters(folder: Path) -> list[Tensor]:
    return list(Codec.from_pretrained(folder, "cpu").network.state_dict().values())


def _mean(summary: EvaluationSummary, category: str, codec: str, metric: str, digits: int) -> str:
    """Mean and half of its 95 % interval."""
    found = summary.categories[category].systems[codec][metric]
    if found.mean is None or found.low is None or found.high is None:
        return "-"
    return f"{found.mean:.{digits}f} ±{(found.high - found.low) / 2:.{digits}f}"


if __name__ == "__main__":
    main()
