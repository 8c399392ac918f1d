"""Start of a run: finds or makes the plan, in the output folder or, for a dry run, in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from codectok.errors import CodectokError
from codectok.pipelines.engine.job import Job
from codectok.pipelines.engine.options import RunOptions
from codectok.sources.listing.arguments import Argument, parse_arguments
from codectok.sources.listing.sources import list_sources
from codectok.storage import Storage

from .plan import Plan, load_plan
from .reading import reading_fields
from .store import header_of, refuse_other_job, store_generation


@dataclass(frozen=True)
class PlanRequest:
    """A command that asks for a plan.

    Attributes:
        job: job to plan.
        arguments: sources named by the command.
        roots: folder or URL of each dataset.
        output: storage of the output; its files are never sources.
        stored: plan in `output`; None if it has none.
        extend: list the sources again.
        strict: refuse manifests with lines that cannot be used.
    """

    job: Job
    arguments: tuple[Argument, ...]
    roots: Mapping[str, str]
    output: Storage
    stored: Plan | None
    extend: bool
    strict: bool = False

    @classmethod
    def of(cls, job: Job, sources: Sequence[str], output: Storage, extend: bool, strict: bool = False) -> PlanRequest:
        """Parse `sources`, and load the plan in `output`.

        Raises:
            InputError: a source that does not exist, or a plan of another job.
        """
        arguments, roots = parse_arguments(sources, job.kinds)
        stored = load_plan(output, roots)
        if stored is not None:
            refuse_other_job(stored, job, arguments, output, extend)
        return cls(job, arguments, roots, output, stored, extend, strict)

    def planned(self) -> Plan | None:
        """The stored plan if it can be used as it is; None if sources must be listed."""
        return None if self.extend else self.stored

    def list_and_store(self, target: Storage, check: Callable[[], None] = lambda: None) -> Plan:
        """List the sources, and store a new or extended plan in `target`: the output, or a copy of its plan.

        `check` is called before the plan is stored, since the lock may be lost in the hours that a listing takes.
        """
        job = self.job
        listing = list_sources(
            self.arguments,
            dict(self.roots),
            job.kinds,
            self.output.url,
            job.reads,
            encoding=reading_fields(job.options()).get("encoding"),
            strict=self.strict,
        )
        job.check_sources(listing)
        check()
        store_generation(target, self.stored, header_of(job), listing, job.cutting)
        return reload_plan(target, self.roots)


def reload_plan(storage: Storage, roots: Mapping[str, str]) -> Plan:
    """Load a plan that was stored before."""
    plan = load_plan(storage, roots)
    if plan is None:
        raise CodectokError(f"The plan of {storage.url} is missing; run the same command again.")
    return plan


def units_to_do(plan: Plan, done: Collection[int], options: RunOptions) -> list[int]:
    """Units that a run with `options` makes; units in `done` are complete."""
    share = options.part
    numbers = (number for number in range(len(plan.units)) if number not in done)
    return list(islice((number for number in numbers if share is None or share.includes(number)), options.limit))
