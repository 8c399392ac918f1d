"""What a machine of a cluster needs to write the bytes that the driver's machine would write."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from codectok.errors import CodectokError, first_line
from codectok.pipelines.engine.planning.plan import PLAN_FILE, Plan
from codectok.sources.source import Source
from codectok.storage import Storage, is_url, open_storage

from .node_facts import NodeFacts, difference, node_facts

DISK_ADVICE = "give an output that all machines share"
STORE_ADVICE = (
    "machines reach a store by their own settings: set its address and keys, as in AWS_ENDPOINT_URL and"
    " AWS_ACCESS_KEY_ID, in the environment of `ray start` there"
)


@dataclass(frozen=True)
class Requirements:
    """Programs and files that the machine of a worker must have; one that joined late was not asked before.

    Attributes:
        facts: of the driver's machine.
        url: absolute folder or URL of the output.
        plan_sha256: hash of the plan in it.
        sources: one of each dataset.
    """

    facts: NodeFacts
    url: str
    plan_sha256: str
    sources: tuple[Source, ...]

    @classmethod
    def of(cls, storage: Storage, plan: Plan) -> Requirements:
        """Find the requirements on the driver's machine; sources that it cannot read itself are left out."""
        sources = [source for source in plan.source_of_each_dataset() if problem_of_sources([source]) is None]
        return cls(node_facts(), storage.address, _hash_of_plan(storage), tuple(sources))

    def problem(self) -> str | None:
        """Return why this machine does not fulfil them, without a full stop; None if it does."""
        problem = difference(self.facts, node_facts())
        if problem is not None:
            return problem
        try:
            shared = _hash_of_plan(open_storage(self.url)) == self.plan_sha256
        except (CodectokError, OSError):
            shared = False
        if not shared:
            return f"it does not see the output {self.url}; {advice_about(self.url)}"
        return problem_of_sources(self.sources)


def advice_about(url: str) -> str:
    """How a machine reaches an output that it does not see."""
    return STORE_ADVICE if is_url(url) else DISK_ADVICE


def problem_of_sources(sources: Iterable[Source]) -> str | None:
    """Return which of the sources this machine cannot read, and why; None if it can read all."""
    for source in sources:
        try:
            source.check_unchanged()
        except Exception as error:  # a missing mount, a refused credential, another file there
            return f"it cannot read {source.where}: {first_line(error).rstrip('.')}"
    return None


def _hash_of_plan(storage: Storage) -> str:
    return hashlib.sha256(storage.read(PLAN_FILE)).hexdigest()
