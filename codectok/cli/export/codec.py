"""`codectok export codec`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codectok.choices import WeightsType
from codectok.cli.console import facts_table
from codectok.formatting import megabytes

NAME = "codec"
EXAMPLE = "codectok export codec run/ codec-so-far/"


def run(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder of a training checkpoint, or of a run for its newest one.")
    ],
    output: Annotated[Path, typer.Argument(help="Folder for the codec; new or empty.")],
    dtype: Annotated[
        WeightsType,
        typer.Option("--dtype", help="Type of the stored weights; float16 halves the file and rounds them."),
    ] = "float32",
) -> None:
    """Write the codec of a training checkpoint, also of a run that is still training."""
    from codectok.checkpoints.native import MODEL_FILE
    from codectok.loading import load_codec
    from codectok.names import check_new_folder
    from codectok.train.run.checkpoint_codec import codec_of_checkpoint

    check_new_folder(output)
    codec = codec_of_checkpoint(checkpoint)
    codec.save_pretrained(output, dtype)
    facts_table(
        "codectok export codec",
        {
            "output": f"{output} ({megabytes((output / MODEL_FILE).stat().st_size)})",
            "codec": load_codec(output, "cpu").describe().label,
            "origin": codec.header.origin,
        },
    )
