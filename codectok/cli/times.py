"""Times of a run as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from codectok.formatting import counted, format_duration

if TYPE_CHECKING:
    from codectok.pipelines.engine.progress import Machine
    from codectok.pipelines.engine.timing import RunTiming

# Shorter phases are left out.
SHOWN_SECONDS, SHOWN_SHARE = 0.05, 0.005
SHOWN_MACHINES = 4


def time_facts(timing: RunTiming) -> dict[str, object]:
    """Rows about the speed of a run, its start, its workers and its GPUs."""
    facts: dict[str, object] = {"time": format_duration(timing.wall)}
    if timing.audio:
        speed = timing.times_real_time
        facts["speed"] = f"{speed:,.0f}x real time: {format_duration(3600 * speed)} of audio an hour"
    started, finished = timing.first_unit_started, timing.first_unit_finished
    if started is not None and finished is not None:
        facts["first unit"] = f"began after {format_duration(started)}, finished after {format_duration(finished)}"
        facts["before it"] = phases_in_seconds(timing.before_units)
    if timing.server_phases:
        facts["encoders"] = f"started in {phases_in_seconds(timing.server_phases)}"
    total = format_duration(sum(timing.worker_phases.values()))
    facts["workers"] = f"{phases_in_shares(timing.worker_phases)} of {total} of {counted(timing.workers, 'worker')}"
    if timing.units_run_twice:
        facts["slow units"] = f"{timing.units_run_twice:,} ran a second time on another machine"
    if timing.gpu_busy is not None:
        facts["GPU"] = f"computed for an encoder in {timing.gpu_busy:.0%} of its time"
    elif timing.server_busy is not None:
        facts["encoders busy"] = f"{timing.server_busy:.0%} of the time"
    return facts


def machine_rows(machines: Sequence[Machine]) -> list[list[str]]:
    """Rows about the machines of a cluster, one for all that are equal: names or their number, CPUs, GPUs, programs."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for machine in machines:
        programs = ", ".join(f"{name} {version}" for name, version in machine.programs.items())
        groups.setdefault((f"{machine.cpus:g}", f"{machine.gpus:g}", programs), []).append(machine.name)
    return [
        [", ".join(names) if len(names) <= SHOWN_MACHINES else counted(len(names), "machine"), *facts]
        for facts, names in groups.items()
    ]


def phases_in_seconds(phases: Mapping[str, float]) -> str:
    """List phases with their seconds."""
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items() if seconds >= SHOWN_SECONDS)


def phases_in_shares(phases: Mapping[str, float]) -> str:
    """List phases with their shares of the whole."""
    total = sum(phases.values())
    shares = {name: seconds / total for name, seconds in phases.items()} if total else {}
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= SHOWN_SHARE)
