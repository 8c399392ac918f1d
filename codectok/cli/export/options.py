"""Options shared by several formats of `codectok export`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.errors import InputError
from codectok.exports.choices import Packing, TooLong, Until

if TYPE_CHECKING:
    from codectok.description import CodecDescription
    from codectok.exports.sequences.packing import PackingOptions
    from codectok.tokens.layouts.layout import TokenLayout

OffsetOption = Annotated[
    int | None,
    typer.Option(
        "--offset",
        help="Id of the first code; by default the rows of the embedding by the configuration of --model, or by the"
        " one in the tokenizer's folder; without a configuration 152064 (Qwen2.5-7B).",
        show_default=False,
    ),
]
ModelOption = Annotated[
    Path | None, typer.Option("--model", help="Folder of the language model; its embedding decides the offset.")
]
TokenizerOption = Annotated[
    Path | None, typer.Option("--tokenizer", help="Folder of the language model's tokenizer, for text.")
]
LayoutOption = Annotated[
    str,
    typer.Option(
        "--layout",
        help="How codes are written as tokens: unitts, llasa, neutts, spark, apertus, orpheus, soda, or a YAML or JSON"
        " file.",
    ),
]
AllowMixedOption = Annotated[
    bool,
    typer.Option("--allow-mixed", help="Mix codes of one codec computed on other devices or in other arithmetic."),
]
PackingOption = Annotated[Packing, typer.Option("--packing", help="How documents are packed into sequences.")]
LengthsOption = Annotated[
    list[int] | None,
    typer.Option(
        "--length",
        min=1,
        help="Largest number of tokens in a sequence; several write documents to a folder for each length.",
        show_default=False,
    ),
]
SampleOption = Annotated[
    str | None,
    typer.Option(
        "--sample",
        help="Parts in which --dry-run counts documents: a number (1 by default), or all.",
        metavar="N|all",
        show_default=False,
    ),
]
WeightOption = Annotated[
    list[str] | None, typer.Option("--weight", help="NAME=SHARE: mix the sources by these shares of tokens.")
]
UntilOption = Annotated[
    Until | None,
    typer.Option("--until", help="End a mixture with its first source, or with its last one.", show_default="first"),
]
PartMegabytesOption = Annotated[float, typer.Option("--part-megabytes", help="MB of the sources per part file.")]


@dataclass(frozen=True)
class Offset:
    """Id of the first code, and the reason for it, to be shown."""

    value: int
    reason: str

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


def offset_of(
    offset: int | None,
    model: Path | None,
    tokenizer: Path | None,
    codec: Callable[[], CodecDescription],
    layout: TokenLayout | None = None,
) -> Offset:
    """Return the offset that the options decide.

    Args:
        offset, model: the options of these names.
        tokenizer: folder that may hold the model's configuration, too.
        codec: returns the codec of the codes; called only if it has to be checked.
        layout: how codes are written; by default as in UniTTS.

    Raises:
        InputError: both options are given, the model's number of rows is missing, or a folder has the tokens of
            another codec or layout.
    """
    from codectok.exports.language_model.vocabulary import has_vocabulary, read_model_vocabulary
    from codectok.exports.tokenizer import check_same_tokens, has_tokenizer
    from codectok.tokens.layouts.loading import default_layout
    from codectok.tokens.layouts.record import check_same_layout, read_layout_record
    from codectok.tokens.vocabulary import DEFAULT_OFFSET

    layout = layout or default_layout()
    if offset is not None and model is not None:
        raise InputError("--offset and --model both decide the offset; pass one of them.")
    folders = [] if model is None else [model]
    if tokenizer is not None and has_vocabulary(tokenizer):
        folders.append(tokenizer)
    found = {folder: read_model_vocabulary(folder) for folder in folders}
    for folder, vocabulary in found.items():
        if vocabulary.audio is not None:
            vocabulary.check_codec(codec(), folder)
            vocabulary.check_layout(layout, folder)
            if tokenizer is not None and has_tokenizer(tokenizer):
                check_same_tokens(tokenizer, vocabulary.audio.special_tokens, vocabulary.rows, folder)
    record = None if tokenizer is None else read_layout_record(tokenizer)
    if record is not None:
        check_same_layout(record, layout, f"The tokenizer in {tokenizer}")
    if layout.first_id is not None:
        if offset not in (None, layout.first_id):
            raise InputError(
                f"The layout {layout.name} has its codes from {layout.first_id} on, not from {offset}; leave --offset"
                " out."
            )
        return Offset(layout.first_id, f"by the layout {layout.name}")
    if offset is not None:
        return Offset(offset, "as given")
    if not folders:
        return Offset(
            DEFAULT_OFFSET + layout.n_before, "assumed: the rows of Qwen2.5-7B; for another model pass --model"
        )
    folder, first = folders[0], found[folders[0]]
    if first.audio is None:
        marks = f", and {layout.n_before} special tokens" if layout.n_before else ""
        return Offset(first.rows + layout.n_before, f"the rows of {folder}{marks}")
    return Offset(first.offset, f"as in {folder}, which has these tokens")


def packing_of(
    packing: Packing, lengths: list[int] | None, too_long: TooLong | None
) -> tuple[PackingOptions, tuple[int, ...]]:
    """Return the packing for the longest sequences, and the lengths of shorter ones.

    Raises:
        InputError: `too_long` is given without a length, or they do not fit each other.
    """
    from codectok.exports.sequences.packing import PackingOptions

    if too_long is not None and not lengths:
        raise InputError("--too-long needs a length; pass --length.")
    ordered = sorted(lengths or [])
    longest = ordered.pop() if ordered else None
    return PackingOptions(packing, longest, too_long or TooLong.DROP), tuple(ordered)


def ids_facts(offset: Offset, layout: TokenLayout) -> dict[str, object]:
    """Return the facts about ids that a command shows: the offset, and a layout other than the default."""
    from codectok.tokens.layouts.loading import DEFAULT_LAYOUT

    return {"offset": offset} if layout.name == DEFAULT_LAYOUT else {"offset": offset, "layout": layout.label}


def described(codec: str) -> CodecDescription:
    """Describe a codec, given by folder or name, or the codec of a token table, given by path or URL."""
    from codectok.loading import load_codec
    from codectok.storage import is_url
    from codectok.tokens.table import read_metadata

    path = Path(codec)
    # A vocabulary depends on the codec alone, not on the way in which its codes were computed.
    if is_url(codec):
        return read_metadata(codec, allow_mixed=True)
    if path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
        return read_metadata(path, allow_mixed=True)
    return load_codec(codec, device="cpu").describe()


def named_values(values: list[str], option: str) -> dict[str, str]:
    """Split NAME=VALUE; the name "" stands for all other sources.

    Raises:
        InputError: a name has two values.
    """
    found: dict[str, str] = {}
    for value in values:
        name, separator, rest = value.partition("=")
        name, rest = (name, rest) if separator else ("", value)
        if name in found:
            where = name or "all sources"
            raise InputError(f"{option} has two values for {where}, {found[name]} and {rest}; pass one.")
        found[name] = rest
    return found


def weights_of(weight: list[str] | None, until: Until | None) -> dict[str, float] | None:
    """Parse --weight into shares by source name; None if it is not given.

    Raises:
        InputError: a share has no name or is not a number, or --until is given without a mixture.
    """
    shares = named_values(weight or [], "--weight")
    if "" in shares:
        raise InputError(f"--weight {shares['']} names no source; write NAME={shares['']}.")
    if until is not None and not shares:
        raise InputError("--until needs a mixture; give every source a --weight, or leave --until out.")
    return {name: _number(name, share) for name, share in shares.items()} or None


def _number(name: str, share: str) -> float:
    try:
        return float(share)
    except ValueError:
        raise InputError(f"The weight of {name} must be a number, not {share!r}.") from None
