"""`codectok export`."""

from __future__ import annotations

import typer

from . import (
    export_compact,
    export_documents,
    export_huggingface,
    export_language_model,
    export_tokenizer,
    export_unitts,
    export_vocabulary,
)

NAME = "export"

app = typer.Typer(no_args_is_help=True, help="Bring a token table into another form.")

for _form in (
    export_compact,
    export_vocabulary,
    export_unitts,
    export_huggingface,
    export_tokenizer,
    export_language_model,
):
    app.command(_form.NAME, epilog=f"Example: `{_form.EXAMPLE}`")(_form.run)

for _name, (_help, _example) in export_documents.FORMS.items():
    app.command(_name, help=_help, epilog=f"Example: `{_example}`")(export_documents.run)
