"""The `codectok` command: its verbs, errors and exit codes."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from codectok.errors import CodectokError
from codectok.names import printable

from . import (
    clean,
    decode,
    encode,
    evaluate,
    import_distilcodec,
    inspect,
    listen,
    reconstruct,
    report,
    shard,
    status,
    tokenize,
    train,
    verify,
)
from .console import fail
from .encoding import use_utf8
from .export import app as export
from .imports import app as imports
from .interruption import is_interrupted, listen_for_signals
from .streams import flush_streams, has_reader, lose, open_closed_streams

INTERRUPTED = 130
_SURROGATES = re.compile(r"[\udc80-\udcff]")  # bytes of file names that are not UTF-8


class _Verbs(TyperGroup):
    """Group of verbs that prints errors of codectok as one line and sets the exit code.

    Unexpected exceptions keep their traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CodectokError as error:
            fail(str(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise _interrupted() from None
        except BrokenPipeError as error:
            lose("stdout", error)
            raise typer.Exit(CodectokError.exit_code) from None
        except OSError as error:
            if error.errno is None or error.strerror is None:
                raise
            where = f" ({error.filename})" if error.filename else ""
            fail(f"Reading or writing failed: {error.strerror}{where}.")
            raise typer.Exit(CodectokError.exit_code) from None
        except UnicodeEncodeError as error:
            if not _SURROGATES.search(str(error.object)):
                raise
            fail(f"A library cannot use the name {printable(str(error.object))}, which is not UTF-8; rename it.")
            raise typer.Exit(CodectokError.exit_code) from None
        except Exception:
            # A library whose import was interrupted is incomplete and fails later with any exception.
            if not is_interrupted():
                raise
            raise _interrupted() from None


def _interrupted() -> typer.Exit:
    fail("Interrupted.")
    return typer.Exit(INTERRUPTED)


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from codectok import __version__

        typer.echo(f"codectok {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Turn audio corpora into token tables for language models, and train the codec that makes the tokens."""


for _verb in (
    shard, train, report, tokenize, encode, decode, reconstruct, evaluate, listen, inspect, verify, import_distilcodec,
    status, clean,
):  # fmt: skip
    app.command(_verb.NAME, epilog=f"Example: `{_verb.EXAMPLE}`")(_verb.run)

app.add_typer(export.app, name=export.NAME)
app.add_typer(imports.app, name=imports.NAME)


def main() -> None:
    """Entry point of the console script."""
    open_closed_streams()
    use_utf8()
    listen_for_signals()
    status: str | int | None = 0
    try:
        app()
    except OSError as error:  # from printing the help
        lose("stdout", error)
    except SystemExit as end:
        status = end.code
    lost = flush_streams()
    if lost is not None and status == 0:
        status = CodectokError.exit_code
        if has_reader(lost):
            fail(f"Text for standard output could not be written: {lost.strerror}.")
    sys.exit(status)
