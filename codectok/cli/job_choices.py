"""The options that every verb has which runs a job."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AddressOption, Engine, EngineOption, WorkersOption

if TYPE_CHECKING:
    from codectok.pipelines.engine.options import RunOptions


@dataclass(frozen=True)
class JobChoices:
    """What the user has chosen; the fields are the options of the command line."""

    workers: WorkersOption = None
    engine: EngineOption = Engine.RAY
    address: AddressOption = None
    part: Annotated[str | None, typer.Option(help="Run share i of n of the units, as in 2/8.", show_default=False)] = (
        None
    )
    limit: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many units; a later run goes on.", show_default=False)
    ] = None
    extend: Annotated[bool, typer.Option("--extend", help="List the sources again and add what is new.")] = False
    max_rejects: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the inputs that may be broken.")] = 0.1
    deadline_hours: Annotated[
        float, typer.Option(help="After so long a unit is tried on another worker (Ray only).")
    ] = 6.0
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False
    space_check: Annotated[bool, typer.Option(help="Refuse to start where the output would not fit.")] = True

    def run_options(self, gpus: int | None) -> RunOptions:
        """The same as the engine takes them."""
        from codectok.pipelines.engine.lock import JobShare
        from codectok.pipelines.engine.options import RunOptions

        return RunOptions(
            engine=self.engine.value,
            workers=self.workers,
            address=self.address,
            gpus=gpus,
            part=JobShare.parse(self.part) if self.part else None,
            limit=self.limit,
            extend=self.extend,
            max_rejects=self.max_rejects,
            deadline_seconds=3600 * self.deadline_hours,
            check_space=self.space_check,
        )


def with_job_choices(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose last argument is `choices`, an option for each field of `JobChoices`."""
    signature = inspect.signature(command, eval_str=True)
    options = inspect.signature(JobChoices, eval_str=True).parameters
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "choices"]

    @wraps(command)
    def run(**given: Any) -> None:
        choices = JobChoices(**{name: given.pop(name) for name in options})
        command(**given, choices=choices)

    # This is where typer looks for the options.
    parameters = [*own, *(option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options.values())]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
