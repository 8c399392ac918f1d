"""Running `codectok` in the process of a test."""

from __future__ import annotations

from typing import Any

import typer
from typer import Typer
from typer.testing import CliRunner, Result

from codectok.cli.main import app
from codectok.cli.train import run as run_train


def codectok(*arguments: object) -> Result:
    """Run `codectok` with `arguments`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def command_names(group: Typer) -> set[str]:
    """Return the names of the commands directly in `group`."""
    names = set()
    for command in group.registered_commands:
        assert command.name is not None
        names.add(command.name)
    return names


def one_line(text: str) -> str:
    """Return `text` with each run of spaces and line breaks as one space."""
    return " ".join(text.split())


def assert_refused(result: Result, *words: str, code: int = 2) -> None:
    """Assert that the command ended with `code` and one sentence that holds all `words`."""
    message = one_line(result.stderr)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert message.startswith("Error:"), message
    assert message.count("Error:") == 1
    for word in words:
        assert word in message


def train_command(config: str, overrides: list[str], **options: Any) -> None:
    """Call the function of `codectok train` in this process, without a command line."""
    run_train(typer.Context(typer.main.get_command(app)), config, overrides, **options)
