"""Options that several forms of `codectok export` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.errors import InputError

if TYPE_CHECKING:
    from codectok.description import CodecDescription

OffsetOption = Annotated[
    int | None,
    typer.Option(
        "--offset",
        help="Id of the first code; by default what the configuration of --model, or else the one in the tokenizer's"
        " folder, says: the rows of the embedding; without one 152064 (Qwen2.5-7B).",
        show_default=False,
    ),
]
ModelOption = Annotated[
    Path | None, typer.Option("--model", help="Folder of the language model, whose embedding gives the offset.")
]
TokenizerOption = Annotated[
    Path | None, typer.Option("--tokenizer", help="Folder of the language model's tokenizer, for text.")
]
PartMegabytesOption = Annotated[float, typer.Option("--part-megabytes", help="MB of the sources that become one part.")]


@dataclass(frozen=True)
class Offset:
    """Id of the first code, and in words why it is this one."""

    value: int
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


def offset_of(
    offset: int | None, model: Path | None, tokenizer: Path | None, codec: Callable[[], CodecDescription]
) -> Offset:
    """The offset that the options say.

    Args:
        offset, model: the options of these names.
        tokenizer: folder in which the model's configuration may lie, too.
        codec: tells which one the codes are of, where it matters.

    Raises:
        InputError: both options, a model that does not say its rows, or a folder that has the tokens of another codec.
    """
    from codectok.exports.language_model.vocabulary import has_vocabulary, read_model_vocabulary
    from codectok.tokens.vocabulary import DEFAULT_OFFSET

    if offset is not None and model is not None:
        raise InputError("--offset and --model say the same; pass one of them.")
    folders = [] if model is None else [model]
    if tokenizer is not None and has_vocabulary(tokenizer):
        folders.append(tokenizer)
    found = {folder: read_model_vocabulary(folder) for folder in folders}
    for folder, vocabulary in found.items():
        if vocabulary.audio is not None:
            vocabulary.check_codec(codec(), folder)
    if offset is not None:
        return Offset(offset, "as given")
    if not folders:
        return Offset(DEFAULT_OFFSET, "assumed: the rows of Qwen2.5-7B; for another model pass --model")
    folder, first = folders[0], found[folders[0]]
    if first.audio is None:
        return Offset(first.rows, f"the rows of {folder}")
    return Offset(first.offset, f"as in {folder}, which has these tokens")


def described(codec: str) -> CodecDescription:
    """The codec in a folder or of a name, or the one that a token table, here or at a URL, was made with."""
    from codectok.codec import Codec
    from codectok.storage import is_url
    from codectok.tokens.table import read_metadata

    path = Path(codec)
    if is_url(codec):
        return read_metadata(codec)
    if path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
        return read_metadata(path)
    return Codec.from_pretrained(codec, device="cpu").describe()
