"""`codectok import-distilcodec`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import facts_table

NAME = "import-distilcodec"
EXAMPLE = "codectok import-distilcodec DistilCodec-v1.0/ codec/ --step 204000"


def run(
    directory: Annotated[Path, typer.Argument(help="Folder with g_XXXXXXXX and model_config.json.")],
    output: Annotated[Path, typer.Argument(help="Folder for the codec; new or empty.")],
    step: Annotated[int | None, typer.Option(help="Step to convert, if the folder holds several.")] = None,
) -> None:
    """Convert a DistilCodec checkpoint into a codec folder."""
    from codectok.atomic import replacing_folder
    from codectok.codec import Codec

    codec = Codec.from_distilcodec(directory, step, device="cpu")
    with replacing_folder(output) as temporary:
        codec.save_pretrained(temporary)
    facts_table(
        "codectok import-distilcodec",
        {"output": output, "origin": codec.header.origin, "fingerprint": codec.fingerprint},
    )
