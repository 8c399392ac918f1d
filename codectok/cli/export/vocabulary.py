"""`codectok export vocabulary`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codectok.cli.console import facts_table

from .options import LayoutOption, ModelOption, OffsetOption, TokenizerOption, described, offset_of

NAME = "vocabulary"
EXAMPLE = "codectok export vocabulary codec/ vocabulary/"


def run(
    codec: Annotated[str, typer.Argument(help="Folder or name of a codec, or a token table (also its URL).")],
    output: Annotated[Path, typer.Argument(help="Folder for vocabulary.json and tokens.json; new or empty.")],
    offset: OffsetOption = None,
    model: ModelOption = None,
    tokenizer: TokenizerOption = None,
    layout: LayoutOption = "unitts",
) -> None:
    """Write the ids and strings of codes and special tokens in a language model."""
    from codectok.exports.sequences.text_tokenizer import TextTokenizer
    from codectok.exports.vocabulary import write_vocabulary
    from codectok.tokens.layouts.loading import load_layout

    loaded_layout = load_layout(layout)
    loaded = None if tokenizer is None else TextTokenizer(tokenizer)
    described_codec = described(codec)
    chosen = offset_of(offset, model, tokenizer, lambda: described_codec, loaded_layout)
    written = write_vocabulary(described_codec, output, chosen.value, loaded, loaded_layout)
    facts = {
        "output": output,
        "codec": written.codec_name,
        **({} if written.layout is None else {"layout": written.layout.label}),
        "offset": chosen,
        "codes": f"{written.n_groups * written.n_residuals} x {written.codebook_size:,} from {written.offset} on",
        "special tokens": ", ".join(f"{name} {token_id}" for name, token_id in written.special_tokens.items()),
        "rows of the model": f"{written.end:,} at least",
    }
    facts_table("codectok export vocabulary", facts)
