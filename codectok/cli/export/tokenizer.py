"""`codectok export tokenizer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codectok.cli.console import facts_table

from .options import ModelOption, OffsetOption, described, offset_of

NAME = "tokenizer"
EXAMPLE = "codectok export tokenizer Qwen2.5-7B/ tokenizer/ --codec codec/"


def run(
    tokenizer: Annotated[Path, typer.Argument(help="Folder of a tokenizer of transformers.")],
    output: Annotated[Path, typer.Argument(help="Folder for the tokenizer with audio tokens; new or empty.")],
    codec: Annotated[str, typer.Option(help="Folder or name of a codec, or a token table (also its URL).")],
    offset: OffsetOption = None,
    model: ModelOption = None,
) -> None:
    """Extend a tokenizer of transformers with the tokens of a codec."""
    from codectok.atomic import replacing_folder
    from codectok.exports.tokenizer import extend_tokenizer
    from codectok.tokens.vocabulary import Vocabulary

    described_codec = described(codec)
    chosen = offset_of(offset, model, tokenizer, lambda: described_codec)
    vocabulary = Vocabulary.for_codec(described_codec, chosen.value)
    with replacing_folder(output) as temporary:
        n_unused = extend_tokenizer(tokenizer, temporary, vocabulary)
    facts = {
        "output": output,
        "offset": chosen,
        "codes": f"{vocabulary.n_codes:,} from {vocabulary.offset} on",
        "unused tokens before them": f"{n_unused:,}",
        "tokens": f"{vocabulary.end:,}",
    }
    facts_table("codectok export tokenizer", facts)
