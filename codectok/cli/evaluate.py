"""`codectok evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.choices import DEFAULT_CODEC
from codectok.errors import InputError
from codectok.formatting import counted

from .console import console, rows_table, say, warn
from .job_choices import JobChoices, with_job_choices
from .options import (
    AudioColumnOption,
    CancelledOption,
    ChannelOption,
    DeviceOption,
    DtypeOption,
    EncodingOption,
    KernelsOption,
    MaxFileBytesOption,
    MaxFileSecondsOption,
    ScaleOption,
    codec_or_default,
)

if TYPE_CHECKING:
    from codectok.evaluation.summary import Estimate, EvaluationSummary

NAME = "evaluate"
EXAMPLE = "codectok evaluate testset/ evaluation/ --codec universal-small --codec mine=run/codec/"
# Direction of better values.
ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}
PRESETS = ("librispeech-test-clean",)
# Longer clips are cut by default: some metrics take longer than the clip.
LONGEST_SECONDS = 30.0


@with_job_choices
def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="TESTSET...",
            help="Folders, patterns, audio files, WebDataset tars, manifests, or URLs; NAME=SOURCE names a dataset.",
        ),
    ],
    output: Annotated[str, typer.Argument(help="Folder or URL for the results: new, or of the same job to resume.")],
    codecs: Annotated[
        list[str] | None,
        typer.Option(
            "--codec",
            help="Codec to measure, as in `tokenize`; NAME=CODEC names it; repeat it to compare.",
            metavar="[NAME=]CODEC",
            show_default=DEFAULT_CODEC,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Metrics, separated by commas.", show_default="all that are installed"),
    ] = None,
    controls: Annotated[
        str | None,
        typer.Option(
            help="Controls to measure beside the codecs, separated by commas, or none.",
            show_default="all that are installed",
        ),
    ] = None,
    stability: Annotated[
        bool, typer.Option(help="Encode changed copies of each clip, too, and compare their codes.")
    ] = True,
    utmos: Annotated[
        Path | None,
        typer.Option(help="Your TorchScript file of UTMOS, called with float32 [1, n] at 16 kHz.", show_default=False),
    ] = None,
    recognizer: Annotated[
        str | None,
        typer.Option(
            help="Speech recognizer MODULE:FUNCTION, called with float32 [n] and 16000.", show_default="pocketsphinx"
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help=f"Follow the protocol of published figures: {', '.join(PRESETS)}.", show_default=False),
    ] = None,
    references: Annotated[
        bool, typer.Option("--references", help="Write originals, reconstructions, and lists for tools such as VERSA.")
    ] = False,
    max_seconds: Annotated[
        float | None,
        typer.Option(help="Measure only the first N seconds of longer clips.", show_default=f"{LONGEST_SECONDS:g}"),
    ] = None,
    share: Annotated[float, typer.Option(help="Measure this share of the clips, chosen by their ids.")] = 1.0,
    unit_seconds: Annotated[float, typer.Option(help="Audio in one unit, estimated from file sizes.")] = 600.0,
    encoding: EncodingOption = None,
    audio_column: AudioColumnOption = None,
    max_file_bytes: MaxFileBytesOption = None,
    max_file_seconds: MaxFileSecondsOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    kernels: KernelsOption = "auto",
    channel: ChannelOption = "mix",
    cancelled: CancelledOption = "first",
    scale: ScaleOption = "refuse",
    gpus: Annotated[int | None, typer.Option(help="GPUs to use; all of the machine or cluster by default.")] = None,
    *,
    choices: JobChoices,
) -> None:
    """Measure how well codecs reconstruct a test set, beside controls, and how stable their codes are."""
    from .jobs import command_clock, gpu_model_elsewhere, run_and_report

    clock = command_clock()

    from codectok.audio.sound import SoundOptions
    from codectok.pipelines.evaluate.job import EvaluateJob
    from codectok.pipelines.evaluate.options import EvaluateOptions, NamedCodec

    if preset is not None:
        if share != 1 or max_seconds is not None:
            raise InputError(f"--preset {preset} measures all clips whole; leave --share and --max-seconds out.")
        metrics = _metrics_of_preset(preset, sources, metrics, utmos is not None)
    elif max_seconds is None:
        max_seconds = LONGEST_SECONDS
    options = EvaluateOptions(
        codecs=NamedCodec.parse_all(codecs or [codec_or_default(None)]),
        device=device,
        dtype=dtype,
        kernels=kernels,
        metrics=_names(metrics),
        controls=() if controls == "none" else _names(controls),
        stability=stability,
        utmos=utmos,
        recognizer=recognizer,
        references=references,
        max_seconds=max_seconds,
        preset=preset,
        share=share,
        unit_seconds=unit_seconds,
        encoding=encoding,
        audio_column=audio_column,
        max_file_bytes=max_file_bytes,
        sound=SoundOptions.parse(channel, cancelled, scale, max_file_seconds),
    )
    with clock.during("codec"):
        job = EvaluateJob(options, gpu_model_elsewhere(choices, device))
    report = run_and_report(job, sources, output, choices, gpus, clock=clock)
    if report is not None and report.summary.complete:
        _show(output)


def _names(joined: str | None) -> tuple[str, ...] | None:
    return None if joined is None else tuple(name.strip() for name in joined.split(",") if name.strip())


def _metrics_of_preset(preset: str, sources: list[str], metrics: str | None, with_utmos: bool) -> str:
    from codectok.evaluation.librispeech import METRICS, PRESET, check_test_clean

    if preset != PRESET:
        raise InputError(f"There is no preset {preset}; known are {', '.join(PRESETS)}.")
    if len(sources) != 1:
        raise InputError(f"--preset {PRESET} measures one folder, not {len(sources)}; give test-clean alone.")
    check_test_clean(sources[0] if Path(sources[0]).exists() else sources[0].rpartition("=")[2])
    return metrics or ",".join([*METRICS, *(["utmos"] if with_utmos else [])])


def _show(output: str) -> None:
    from codectok.evaluation.summary import ALL, EvaluationSummary
    from codectok.pipelines.evaluate.files import PAGE_FILE, SUMMARY_FILE
    from codectok.storage import open_storage

    summary = EvaluationSummary.model_validate_json(open_storage(output).read(SUMMARY_FILE))
    everything = summary.categories[ALL]
    measured = [name for name in summary.metrics if any(name in found for found in everything.systems.values())]
    console.print()
    for title, systems, names, with_intervals in _tables_of_metrics(summary, measured):
        rows_table(
            title,
            ("metric", *systems),
            [
                (
                    f"{name} {ARROWS[summary.metrics[name].better]}",
                    *(_cell(everything.systems[system].get(name), with_intervals) for system in systems),
                )
                for name in names
            ],
        )
    rows_table(
        "codes",
        ("codec", "bits/s", "by entropy", "by n-grams", "used", "perplexity"),
        [
            (
                label,
                f"{codes.bits_per_second:,.0f}",
                f"{codes.entropy_bits_per_second:,.0f}",
                "too few" if codes.ngram_bits_per_second is None else f"{codes.ngram_bits_per_second:,.0f}",
                ", ".join(f"{book.used_share:.1%}" for book in codes.codebooks),
                ", ".join(f"{book.perplexity:,.0f}" for book in codes.codebooks),
            )
            for label, codes in everything.codes.items()
        ],
    )
    for name, metric in summary.metrics.items():
        if metric.not_told_apart:
            warn(f"{name} does not rate the original above {', '.join(metric.not_told_apart)} on this data.")
    if undefined := [name for name in summary.metrics if name not in measured]:
        say(f"Undefined for all clips: {', '.join(undefined)}; the reasons are in {output}/metrics.parquet.")
    if summary.cut:
        say(f"Only the beginning of {counted(summary.cut, 'longer clip')} was measured (--max-seconds).")
    for name, needed in summary.not_installed.items():
        say(f"Not measured here: {name}; it needs {needed}.")
    say(f"Intervals, charts and clips to listen to: {output}/{PAGE_FILE}")


def _tables_of_metrics(
    summary: EvaluationSummary, measured: Sequence[str]
) -> Iterator[tuple[str, list[str], list[str], bool]]:
    """Yield title, columns and metrics of each table, and True to show intervals; controls have no codes."""
    from codectok.evaluation.summary import ALL

    everything = summary.categories[ALL]
    of_codes = [name for name in measured if not any(name in everything.systems[each] for each in summary.controls)]
    sound = [name for name in measured if name not in of_codes]
    if sound:
        yield "means", [*summary.codecs, *summary.controls], sound, bool(not summary.controls)
    if of_codes:
        yield "of the codecs alone, with half the 95 % interval", list(summary.codecs), of_codes, True


def _cell(estimate: Estimate | None, with_interval: bool) -> str:
    from codectok.evaluation.pages.line_charts import shown

    if estimate is None or estimate.mean is None:
        return ""
    if not with_interval or estimate.low is None or estimate.high is None:
        return shown(estimate.mean)
    return f"{shown(estimate.mean)} ±{shown((estimate.high - estimate.low) / 2)}"
