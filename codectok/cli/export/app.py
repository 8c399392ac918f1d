"""`codectok export`."""

from __future__ import annotations

import typer

from . import compact, documents, huggingface, language_model, tokenizer, unitts, vocabulary

NAME = "export"

app = typer.Typer(no_args_is_help=True, help="Bring a token table into another form.")

for _form in (
    compact,
    vocabulary,
    unitts,
    huggingface,
    tokenizer,
    language_model,
):
    app.command(_form.NAME, epilog=f"Example: `{_form.EXAMPLE}`")(_form.run)

for _name, (_help, _example) in documents.FORMS.items():
    app.command(_name, help=_help, epilog=f"Example: `{_example}`")(documents.run)
