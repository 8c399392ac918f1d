"""Options that several forms of `codectok export` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.errors import InputError

if TYPE_CHECKING:
    from codectok.description import CodecDescription

OffsetOption = Annotated[
    int | None,
    typer.Option(
        "--offset", help="Id of the first code: the rows of the model's embedding; 152064 (Qwen2.5-7B) by default.",
        show_default=False,
    ),
]  # fmt: skip
ModelOption = Annotated[
    Path | None, typer.Option("--model", help="Folder of the language model, whose embedding gives the offset.")
]
TokenizerOption = Annotated[
    Path | None, typer.Option("--tokenizer", help="Folder of the language model's tokenizer, for text.")
]
PartMegabytesOption = Annotated[float, typer.Option("--part-megabytes", help="MB of the sources that become one part.")]


def offset_of(offset: int | None, model: Path | None) -> int:
    """The offset that the options say."""
    from codectok.exports.vocabulary import embedding_rows
    from codectok.tokens.vocabulary import DEFAULT_OFFSET

    if offset is not None and model is not None:
        raise InputError("--offset and --model say the same; pass one of them.")
    if model is not None:
        return embedding_rows(model)
    return DEFAULT_OFFSET if offset is None else offset


def described(codec: str) -> CodecDescription:
    """The codec in a folder or of a name, or the one that a token table was made with."""
    from codectok.codec import Codec
    from codectok.tokens.table import read_metadata

    path = Path(codec)
    if path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
        return read_metadata(path)
    return Codec.from_pretrained(codec, device="cpu").describe()
