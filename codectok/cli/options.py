"""Command-line options shared by several verbs."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer

from codectok.choices import DEFAULT_CODEC, CancelledChoice, KernelChoice, Precision, ScaleChoice
from codectok.errors import InputError
from codectok.names import LOG_FOLDER_VARIABLE

from .console import say


class TrainingEngine(StrEnum):
    """Launcher of the ranks of a training run."""

    AUTO = "auto"
    RAY = "ray"
    TORCHRUN = "torchrun"
    LOCAL = "local"


_CODEC_HELP = f"{DEFAULT_CODEC}, a folder of a codec, a name on the Hugging Face Hub, or transformers:NAME[@N]."
CodecOption = Annotated[str, typer.Option("--codec", help=_CODEC_HELP)]
OptionalCodecOption = Annotated[
    str | None,
    typer.Option("--codec", help=_CODEC_HELP, show_default=DEFAULT_CODEC),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
DtypeOption = Annotated[Precision, typer.Option("--dtype", help="tf32 and bfloat16 are faster and change some codes.")]
PackFramesOption = Annotated[
    int | None,
    typer.Option("--pack-frames", min=1, help="Mel frames encoded at once: memory against speed.", show_default=False),
]
KernelsOption = Annotated[
    KernelChoice,
    typer.Option("--kernels", help="Kernels on a GPU: fused ones need a C compiler, torch's are slower in bfloat16."),
]
BatchSecondsOption = Annotated[
    float | None,
    typer.Option(
        "--batch-seconds",
        min=0,
        help="Audio of clips of one length encoded at once, by codecs that encode whole clips.",
        show_default="clip by clip",
    ),
]
AudioColumnOption = Annotated[
    str | None,
    typer.Option(
        "--audio-column", help="Column of Parquet files that holds the audio, if several may.", show_default=False
    ),
]
ChannelOption = Annotated[
    str, typer.Option("--channel", help="mix (all to one), each (every channel by itself), or a number from 0 on.")
]
CancelledOption = Annotated[
    CancelledChoice, typer.Option("--cancelled", help="Where channels cancel, use the first, or reject the clip.")
]
ScaleOption = Annotated[
    ScaleChoice,
    typer.Option("--scale", help="Refuse floats far beyond 1, or divide them by the scale of integers."),
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="Ray cluster to join; else RAY_ADDRESS, else a new local Ray.")
]
LogDirOption = Annotated[
    str | None,
    typer.Option(
        "--log-dir",
        envvar=LOG_FOLDER_VARIABLE,
        help="Folder or URL for a log of events (JSON lines), and for metrics for Prometheus.",
        show_default=False,
    ),
]
EncodingOption = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="Encoding of manifests and texts without a byte-order mark, such as latin-1.",
        show_default="utf-8",
    ),
]
MaxFileSecondsOption = Annotated[
    float | None,
    typer.Option("--max-file-seconds", help="Reject what a file holds behind this.", show_default="1,000,000"),
]
MaxFileBytesOption = Annotated[
    int | None,
    typer.Option(
        "--max-file-bytes",
        min=1,
        help="Reject larger files, samples of tars and rows of Parquet.",
        show_default="512 MiB; 256 MiB for rows; no limit for files of this machine",
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Refuse manifests with lines that cannot be used, instead of rejecting them.")
]


def given_options(context: typer.Context, names: Iterable[str]) -> list[str]:
    """Return the options, such as --log-dir, of those parameters that were given on the command line."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return [f"--{name.replace('_', '-')}" for name, found in sources.items() if found and found.name == "COMMANDLINE"]


def refuse_ray_options(context: typer.Context, engine: str, names: Iterable[str]) -> None:
    """Refuse options for Ray that were given on the command line beside an engine without Ray."""
    given = given_options(context, names)
    if given:
        raise InputError(
            f"--engine {engine} runs without Ray and takes no {', '.join(given)}; leave out such options, or choose"
            " --engine ray."
        )


def codec_or_default(codec: str | None) -> str:
    """Return `codec`, or say that the default is used, and return that."""
    if codec is not None:
        return codec
    say(f"Codec: {DEFAULT_CODEC}, the built-in one; --codec names another.")
    return DEFAULT_CODEC
