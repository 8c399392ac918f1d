"""`codectok export`."""

from __future__ import annotations

import typer

from . import chat, codec, codes, compact, documents, huggingface, language_model, tokenizer, unitts, vocabulary

NAME = "export"

app = typer.Typer(no_args_is_help=True, help="Convert a token table to another format.")

for _format in (
    codec,
    compact,
    vocabulary,
    unitts,
    chat,
    codes,
    huggingface,
    tokenizer,
    language_model,
):
    app.command(_format.NAME, epilog=f"Example: `{_format.EXAMPLE}`")(_format.run)

for _name, (_help, _example) in documents.FORMATS.items():
    app.command(_name, help=_help, epilog=f"Example: `{_example}`")(documents.run)
