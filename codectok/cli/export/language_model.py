"""`codectok export language-model`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codectok.cli.console import facts_table, progress
from codectok.cli.options import CodecOption
from codectok.errors import InputError
from codectok.exports.choices import RowStart

from .options import LayoutOption

if TYPE_CHECKING:
    from codectok.exports.language_model.embedding_rows import RowScale
    from codectok.exports.language_model.text_ids import Offset

NAME = "language-model"
EXAMPLE = "codectok export language-model Qwen2.5-7B/ Qwen2.5-7B-audio/ --codec codec/"


def run(
    model: Annotated[Path, typer.Argument(help="Folder of a causal language model of transformers (safetensors).")],
    output: Annotated[Path, typer.Argument(help="Folder for the model with audio tokens; new or empty.")],
    codec: CodecOption,
    offset: Annotated[
        str | None,
        typer.Option(
            help="Id of the first code; by default the number of rows of the embedding. tokens: directly behind the"
            " tokens of the tokenizer, in rows of padding.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        RowStart,
        typer.Option(help="Rows of codes: the code vectors (auto: if the widths agree), projected, or random."),
    ] = RowStart.AUTO,
    scale: Annotated[
        str | None,
        typer.Option(
            help="Divisor of the rows, or rms to match the text rows; by default 100 for the code vectors themselves,"
            " else rms.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of projected and random rows.")] = 0,
    pad_to: Annotated[
        int,
        typer.Option(
            "--pad-vocabulary-to-multiple-of",
            min=1,
            help="Add rows without a token, so that N divides the number of rows; for tensor parallelism.",
        ),
    ] = 1,
    layout: LayoutOption = "unitts",
) -> None:
    """Extend a causal language model of transformers, and its tokenizer, with the tokens of a codec."""
    from codectok.exports.language_model.embedding_rows import RowOptions
    from codectok.exports.language_model.extend import extend_language_model
    from codectok.exports.language_model.folder import ModelFolder
    from codectok.loading import load_codec
    from codectok.tokens.layouts.loading import DEFAULT_LAYOUT, load_layout

    loaded_layout = load_layout(layout)
    options = RowOptions(start, _scale(scale), seed)
    first = _offset(offset)
    n_files = len(ModelFolder(model).files)
    loaded = load_codec(codec, device="cpu")
    with progress(n_files, "export language-model: files") as report:
        done = extend_language_model(model, output, loaded, first, options, report.advance, pad_to, loaded_layout)
    used = done.options
    scaled = "" if used.start == RowStart.RANDOM else f", scale {used.scale}"
    padding = done.rows - done.vocabulary.end
    reused = f"{done.reused_rows:,} that had no token"
    facts = {
        "output": output,
        "rows": f"{done.text_rows:,} -> {done.rows:,}",
        **({"old rows reused": reused} if done.reused_rows else {}),
        **({} if pad_to == 1 else {"padding": f"{padding:,} rows without a token, to a multiple of {pad_to:,}"}),
        **({} if loaded_layout.name == DEFAULT_LAYOUT else {"layout": loaded_layout.label}),
        "offset": done.vocabulary.offset,
        "codes": f"{done.vocabulary.n_codes:,} from {done.vocabulary.offset} on",
        "rows of codes": f"{used.start}{scaled}",
        "extended": ", ".join(done.extended),
        "tokenizer": "none" if done.unused_tokens is None else f"{done.unused_tokens:,} unused tokens before the codes",
    }
    facts_table("codectok export language-model", facts)


def _offset(text: str | None) -> Offset | None:
    if text is None:
        return None
    if text == "tokens":
        return "tokens"
    if not text.isdecimal():
        raise InputError(f"--offset must be an id or tokens, not {text!r}.")
    return int(text)


def _scale(text: str | None) -> RowScale | None:
    if text is None:
        return None
    if text == "rms":
        return "rms"
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--scale must be a number or rms, not {text!r}.") from None
