"""`codectok export tokenizer`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.cli.console import facts_table

from .options import LayoutOption, ModelOption, OffsetOption, described, offset_of

if TYPE_CHECKING:
    from codectok.tokens.vocabulary import Vocabulary

NAME = "tokenizer"
EXAMPLE = "codectok export tokenizer Qwen2.5-7B/ tokenizer/ --codec codec/"


def run(
    tokenizer: Annotated[Path, typer.Argument(help="Folder of a tokenizer of transformers.")],
    output: Annotated[Path, typer.Argument(help="Folder for the tokenizer with audio tokens; new or empty.")],
    codec: Annotated[str, typer.Option(help="Folder or name of a codec, or a token table (also its URL).")],
    offset: OffsetOption = None,
    model: ModelOption = None,
    layout: LayoutOption = "unitts",
) -> None:
    """Extend a tokenizer of transformers with the tokens of a codec."""
    from codectok.atomic import replacing_folder
    from codectok.exports.tokenizer import extend_tokenizer
    from codectok.tokens.layouts.loading import DEFAULT_LAYOUT, load_layout
    from codectok.tokens.vocabulary import Vocabulary

    loaded_layout = load_layout(layout)
    described_codec = described(codec)
    chosen = offset_of(offset, model, tokenizer, lambda: described_codec, loaded_layout)
    vocabulary = Vocabulary.for_codec(described_codec, chosen.value, loaded_layout)
    with replacing_folder(output) as temporary:
        n_unused = extend_tokenizer(tokenizer, temporary, vocabulary)
    facts = {
        "output": output,
        **({} if loaded_layout.name == DEFAULT_LAYOUT else {"layout": loaded_layout.label}),
        "offset": chosen,
        "codes": f"{vocabulary.n_codes:,} from {vocabulary.offset} on",
        "unused tokens before them": f"{n_unused:,}",
        "tokens": f"{vocabulary.end:,}",
    }
    reused = 0 if model is not None else _reused_rows(tokenizer, vocabulary)
    if reused:
        facts["old rows reused"] = (
            f"{reused:,}; initialize them, because resize_token_embeddings keeps them as they are"
        )
    facts_table("codectok export tokenizer", facts)


def _reused_rows(folder: Path, vocabulary: Vocabulary) -> int:
    """Return the number of audio tokens in rows of padding of the model in `folder`; 0 without a model."""
    from codectok.exports.language_model.vocabulary import has_vocabulary, read_model_vocabulary

    rows = read_model_vocabulary(folder).rows if has_vocabulary(folder) else 0
    return max(0, min(rows, vocabulary.end) - vocabulary.first)
