"""Differences between a command and a stored plan."""

from __future__ import annotations

from dataclasses import dataclass

from codectok.sources.listing.arguments import Argument

from .header import PlanHeader
from .plan import Plan

# Characters of an option's old and new value that are shown at most: enough for fingerprints, not for templates.
LONGEST_CHANGE = 160


@dataclass(frozen=True, slots=True)
class Differences:
    """Differences between a command and a plan, in words.

    Attributes:
        sources: arguments that are new or missing; None if they are the same.
        others: differences for which the plan cannot be extended.
    """

    sources: str | None = None
    others: tuple[str, ...] = ()


def differences(plan: Plan, described: PlanHeader, arguments: tuple[Argument, ...]) -> Differences:
    """Compare a plan with a command: the header of its job, and its arguments."""
    header = plan.header
    if header.verb != described.verb:
        return Differences(others=(f"it was made by `{header.verb}`",))
    others = []
    names = header.options.keys() | described.options.keys()
    if header.bytes_version != described.bytes_version:
        names = header.options.keys() & described.options.keys()  # a version may lack options of another
        others.append("another version of codectok wrote it")
    for name in sorted(names):
        before, now = header.options.get(name), described.options.get(name)
        if before != now:
            others.append(_change(name.replace("_", "-"), _words(before), _words(now)))
    planned = plan.arguments
    if set(arguments) in [planned, *(set(generation.arguments) for generation in header.generations)]:
        return Differences(None, tuple(others))
    added = [_describe(argument) for argument in arguments if argument not in planned]
    missing = [_describe(argument) for argument in sorted(planned - set(arguments), key=_describe)]
    changes = ["new " + ", ".join(added)] * bool(added) + ["without " + ", ".join(missing)] * bool(missing)
    return Differences(f"sources differ ({'; '.join(changes)})", tuple(others))


def _describe(argument: Argument) -> str:
    return f"{argument.dataset}/{argument.pattern}".rstrip("/")


def _change(name: str, before: str, now: str) -> str:
    return f"{name} differs" if len(before + now) > LONGEST_CHANGE else f"{name} was {before} and is {now}"


def _words(value: object) -> str:
    return "not given" if value is None else str(value)
