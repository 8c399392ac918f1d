"""Asks each machine of a cluster before the first unit: has it the same code, and the same files as this machine?"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import codectok
from codectok.errors import CodectokError, first_line
from codectok.names import JOB_FOLDER
from codectok.pipelines.engine.job import Job
from codectok.pipelines.engine.progress import Machine
from codectok.sources.source import Source
from codectok.storage import Storage, open_storage

from .node_facts import NodeFacts, difference, node_facts
from .requirements import DISK_ADVICE, STORE_ADVICE, advice_about, problem_of_sources

# Each machine loads the libraries and the codec.
ANSWER_SECONDS = 300.0
# Files that this machine and the others write into the job's folder, to see if all have the same disk or store.
PROBES = f"{JOB_FOLDER}/probes"
SHOWN_NODES = 5
READERS = 32


def nodes_without_our_code() -> dict[str, str]:
    """Ask each machine for its codectok; return its answer, by machine, where it is not the one of this machine."""
    own = node_facts()
    return {name: answer for name, answer in _ask_nodes(_code_of_node).items() if answer != own.code}


def check_nodes(storage: Storage, sources: Sequence[Source], job: Job) -> list[Machine]:
    """Check that all machines have the same programs and files, read the sources, and share the output.

    Args:
        storage: of the output.
        sources: one of each dataset.
        job: checks the files that it needs (`Job.check_machine`).

    Returns:
        The machines.

    Raises:
        CodectokError: a machine differs, cannot read, or cannot write; the message names it.
    """
    own, token = node_facts(), uuid.uuid4().hex
    storage.write(f"{PROBES}/{token}/driver", token.encode())
    try:
        answers = _ask_nodes(_facts_of_node, storage.address, token, sources, job)
        problems = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
        probes = {name: answer["probe"] for name, answer in answers.items() if name not in problems}
        with ThreadPoolExecutor(READERS) as pool:
            read = dict(zip(probes, pool.map(storage.read, probes.values()), strict=True))
        for name, probe in read.items():
            problem = difference(own, NodeFacts(**answers[name]["facts"]))
            if problem is None and probe != name.encode():
                problem = f"it writes to another place than this machine; {DISK_ADVICE}"
            if problem is not None:
                problems[name] = problem
    except FileNotFoundError as error:
        raise CodectokError(
            f"A machine of the cluster writes to another place than this machine ({Path(str(error.filename)).name} did"
            f" not arrive in {storage.url}); give an output that all machines share."
        ) from None
    finally:
        storage.remove(f"{PROBES}/{token}")  # other shares of the job have their own
    if problems:
        raise CodectokError(describe_problems(problems))
    resources = {name: node["Resources"] for name, node in _working_nodes().items()}
    return [_machine(name, resources.get(name, {}), answer["facts"]) for name, answer in answers.items()]


def _machine(name: str, resources: Mapping[str, float], facts: Mapping[str, Any]) -> Machine:
    found = NodeFacts(**facts)
    programs = {"codectok": found.code, "torch": found.torch, "ffmpeg": found.ffmpeg or "no"}
    return Machine(name, resources.get("CPU", 0), resources.get("GPU", 0), programs)


def describe_problems(problems: Mapping[str, str]) -> str:
    """Tell the problems of machines in one sentence, with their names."""
    shown = [f"{name}: {problem}" for name, problem in sorted(problems.items())[:SHOWN_NODES]]
    more = f"; and {len(problems) - SHOWN_NODES} more" if len(problems) > SHOWN_NODES else ""
    return f"Not all machines of the cluster can work on this job: {'; '.join(shown)}{more}."


def package_folder() -> str:
    """Folder of the codectok of this machine."""
    return str(Path(codectok.__file__).parent)


def _code_of_node(_: str) -> str:
    from codectok.pipelines.engine.executors.node_facts import code_version

    return code_version()


def _facts_of_node(name: str, url: str, token: str, sources: Sequence[Source], job: Job) -> str | dict[str, Any]:
    """Return the facts of a machine and its probe, or a sentence about its problem."""
    try:
        storage = open_storage(url)
    except CodectokError as error:
        return f"{first_line(error).rstrip('.')}; {STORE_ADVICE}"
    try:
        seen = storage.read(f"{PROBES}/{token}/driver") == token.encode()
    except FileNotFoundError:
        seen = False
    if not seen:
        return f"it does not see files that this machine writes to {url}; {advice_about(url)}"
    problem = problem_of_sources(sources)
    if problem is not None:
        return problem
    try:
        job.check_machine()
    except CodectokError as error:
        return first_line(error).rstrip(".")
    probe = f"{PROBES}/{token}/{uuid.uuid4().hex}"
    try:
        storage.write(probe, name.encode())
    except OSError as error:
        return f"it cannot write to {url}: {error.strerror or first_line(error)}"
    return {"facts": asdict(node_facts()), "probe": probe}


def _ask_nodes(question: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Call a function of this module on all machines; answers, or sentences about failures, by the machine's name."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote: Any = ray.remote
    calls = {}
    for name, node in _working_nodes().items():
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ask = remote(num_cpus=0, max_retries=1, scheduling_strategy=place)(_by_value(question))
        calls[name] = ask.remote(name, *arguments)
    ray.wait(list(calls.values()), num_returns=len(calls), timeout=ANSWER_SECONDS)
    return {name: _answer(call) for name, call in calls.items()}


def _working_nodes() -> dict[str, Any]:
    """Machines that run units, by name: those with cores, which a head may lack."""
    import ray

    nodes: Any = ray.nodes
    found: dict[str, Any] = {}
    for node in nodes():
        if node["Alive"] and node["Resources"].get("CPU"):
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            found[f"{name} {node['NodeID'][:6]}" if name in found else name] = node
    return found


def _by_value(question: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that a machine without codectok can say so."""
    module, function = question.__module__, question.__name__

    def ask(*arguments: Any) -> Any:
        import importlib

        try:
            return getattr(importlib.import_module(module), function)(*arguments)
        except ImportError as error:
            return f"it cannot import codectok: {error}"

    return ask


def _answer(call: Any) -> Any:
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError

    try:
        return ray.get(call, timeout=0)
    except GetTimeoutError:
        return f"it does not answer within {ANSWER_SECONDS:g} s"
    except RayTaskError as error:
        return f"it fails: {first_line(error.cause).rstrip('.')}"
    except RayError as error:
        return f"it does not answer: {first_line(error).rstrip('.')}"
