"""Command-line options shared by all verbs that run a job."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codectok.choices import EngineName

from .options import AddressOption, LogDirOption, StrictOption, refuse_ray_options

if TYPE_CHECKING:
    from codectok.pipelines.engine.options import RunOptions

# Options of Ray alone, beside the number of workers.
RAY_OPTIONS = ("address", "deadline_hours", "gpus", "encoders_per_gpu")
CONTEXT = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)


@dataclass(frozen=True)
class JobChoices:
    """How the user wants a job to run. Each field is an option of the command line."""

    workers: Annotated[
        int | None,
        typer.Option("--workers", "--cpu-workers", min=1, help="Ray actors; all cores by default.", show_default=False),
    ] = None
    engine: Annotated[EngineName, typer.Option("--engine", help="Ray actors, or this process alone.")] = "ray"
    address: AddressOption = None
    part: Annotated[
        str | None, typer.Option(help="Run share i of n of the units, for example 2/8.", show_default=False)
    ] = None
    limit: Annotated[
        int | None, typer.Option(min=1, help="Stop after N units; run again to resume.", show_default=False)
    ] = None
    extend: Annotated[bool, typer.Option("--extend", help="List the sources again and add new ones.")] = False
    max_rejects: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the inputs that may be broken.")] = 0.1
    strict: StrictOption = False
    deadline_hours: Annotated[
        float, typer.Option(help="Retry a unit on another worker after this many hours (Ray only).")
    ] = 6.0
    log_dir: LogDirOption = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the amount of work without writing.")] = False
    space_check: Annotated[bool, typer.Option(help="Refuse to start if the output would not fit on the disk.")] = True

    def run_options(self, gpus: int | None) -> RunOptions:
        """Convert to the options of the engine."""
        from codectok.pipelines.engine.lock import JobShare
        from codectok.pipelines.engine.options import RunOptions

        return RunOptions(
            engine=self.engine,
            workers=self.workers,
            address=self.address,
            gpus=gpus,
            part=JobShare.parse(self.part) if self.part else None,
            limit=self.limit,
            extend=self.extend,
            max_rejects=self.max_rejects,
            deadline_seconds=3600 * self.deadline_hours,
            check_space=self.space_check,
            strict=self.strict,
            log_dir=self.log_dir,
        )


def with_job_choices(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the last argument of a command, `choices`, by one option for each field of `JobChoices`.

    The command may have an argument `context`, typer's.
    """
    signature = inspect.signature(command, eval_str=True)
    options = inspect.signature(JobChoices, eval_str=True).parameters
    own = [found for found in signature.parameters.values() if found.name not in ("choices", CONTEXT.name)]

    @wraps(command)
    def run(context: typer.Context, **given: Any) -> None:
        choices = JobChoices(**{name: given.pop(name) for name in options})
        if choices.engine == "local":
            # This process is one worker.
            refuse_ray_options(context, "local", RAY_OPTIONS if choices.workers == 1 else ("workers", *RAY_OPTIONS))
        if CONTEXT.name in signature.parameters:
            given[CONTEXT.name] = context
        command(**given, choices=choices)

    # typer reads the options from the signature and the annotations.
    parameters = [CONTEXT, *own, *(option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options.values())]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
