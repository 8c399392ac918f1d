"""`codectok evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.formatting import counted, format_duration

from .console import facts_table, progress, rows_table, say, warn
from .jobs import SHOWN_REJECTS, command_clock
from .options import (
    AudioColumnOption,
    CancelledOption,
    ChannelOption,
    CodecOption,
    DeviceOption,
    DtypeOption,
    EncodingOption,
    MaxFileBytesOption,
    MaxFileSecondsOption,
    ScaleOption,
    StrictOption,
)
from .times import phases_in_seconds

if TYPE_CHECKING:
    from codectok.evaluation.reconstruction import ClipMeasures, EvaluationReport
    from codectok.evaluation.report_files import ReportFiles

NAME = "evaluate"
EXAMPLE = "codectok evaluate testset/ --codec codec/ --out evaluation/"
DESCRIPTIONS = {
    "mel_l1": "mean absolute difference of natural log-mels, 0 is best",
    "stft": "distance of magnitudes at three resolutions, 0 is best",
    "si_sdr": "scale-invariant signal to distortion in dB, higher is better",
    "stoi": "intelligibility of speech, 1 is best",
    "pesq": "quality of speech (wide band), 1 to 4.64",
}


def run(
    sources: Annotated[
        list[str], typer.Argument(help="Folders, patterns, audio files, WebDataset tars, manifests, or URLs.")
    ],
    codec: CodecOption,
    out: Annotated[
        Path | None,
        typer.Option(help="New .json file or folder for the report; a file of JSON lines next to it lists the clips."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Measure only the first N clips.", show_default=False)
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Measure only the first N seconds of longer clips.", show_default=False)
    ] = None,
    audio_column: AudioColumnOption = None,
    encoding: EncodingOption = None,
    max_file_bytes: MaxFileBytesOption = None,
    max_file_seconds: MaxFileSecondsOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    channel: ChannelOption = "mix",
    cancelled: CancelledOption = "first",
    scale: ScaleOption = "refuse",
    strict: StrictOption = False,
) -> None:
    """Encode and decode a test set, and measure its reconstruction and the use of the codebooks.

    Runs in this process, one clip at a time. For whole corpora use `tokenize`, which counts codes, too.
    """
    clock = command_clock()

    from codectok.audio.sound import SoundOptions
    from codectok.evaluation.corpus import evaluate
    from codectok.evaluation.report_files import ReportFiles
    from codectok.loading import load_codec

    sound = SoundOptions.parse(channel, cancelled, scale, max_file_seconds)
    files = None if out is None else ReportFiles(out)
    clock.switch("codec")
    loaded = load_codec(codec, device, dtype)
    clock.switch("other")
    with ExitStack() as stack:
        writer = None if files is None else stack.enter_context(files.writing())
        shown = stack.enter_context(progress(None, "evaluate: files"))
        seconds = 0.0

        def so_far() -> str:
            return f"({format_duration(seconds)} of audio)"

        def note(clip: ClipMeasures) -> None:
            nonlocal seconds
            seconds += clip.seconds
            shown.advance(so_far(), 0)
            if writer is not None:
                writer.add(clip)

        report = evaluate(
            loaded,
            sources,
            limit,
            max_seconds,
            on_listed=shown.set_total,
            on_source=lambda: shown.advance(so_far()),
            on_clip=note,
            audio_column=audio_column,
            sound=sound,
            strict=strict,
            encoding=encoding,
            max_file_bytes=max_file_bytes,
            clock=clock,
        )
        if writer is not None:
            with clock.during("writing"):
                writer.finish(report)
    for clip in report.unused[:SHOWN_REJECTS]:
        warn(f"Not measured ({clip.reason}): {clip.source}: {clip.message}")
    if len(report.unused) > SHOWN_REJECTS:
        where = " in the report" if files is not None else "; pass --out to list all"
        warn(f"Not measured: {counted(len(report.unused) - SHOWN_REJECTS, 'more clip')}{where}.")
    _show(report, files, clock.seconds())


def _show(report: EvaluationReport, files: ReportFiles | None, phases: Mapping[str, float]) -> None:
    from codectok.sources.unused import unused_rows

    codec = report.codec
    facts: dict[str, object] = {
        "codec": f"{codec.codec_name} ({codec.codec_fingerprint[:16]}), {codec.dtype} on {codec.device}",
        "rate": f"{codec.frame_rate:g} frames a second of {counted(codec.n_codebooks, 'code')},"
        f" {report.bits_per_second:,.0f} bits a second ({report.entropy_bits_per_second:,.0f} by entropy)",
        "clips": f"{report.clips:,}, {format_duration(report.seconds)}, {report.frames:,} frames",
        "not measured": f"{counted(len(report.unused), 'clip')}; {report.ignored:,} other files",
    }
    facts["time"] = f"{format_duration(sum(phases.values()))}: {phases_in_seconds(phases)}"
    if files is not None:
        facts["report"] = f"{files.report}, one line a clip in {files.clips}"
    facts_table("codectok evaluate", facts)
    if report.parts:
        rows_table("not used", ("part", "name", "number", "example"), unused_rows(report.parts))
    rows_table(
        "reconstruction",
        ("measure", "mean", "clips", "description"),
        [
            (name, "none" if mean.mean is None else f"{mean.mean:.4f}", f"{mean.clips:,}", DESCRIPTIONS[name])
            for name, mean in report.means.items()
        ],
    )
    rows_table(
        "codebooks",
        ("codebook", "used", "share", "entropy (bits)", "perplexity"),
        [
            (
                number,
                f"{use.used:,} of {len(use.counts):,}",
                f"{use.used_share:.1%}",
                f"{use.entropy:.3f}",
                f"{use.perplexity:,.1f}",
            )
            for number, use in enumerate(report.codebooks)
        ],
    )
    for name, package in report.not_installed.items():
        say(f"Not measured here: {name}, {DESCRIPTIONS[name]}; install it with pip install {package}.")
