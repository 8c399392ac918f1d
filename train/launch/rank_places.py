"""Places for ranks: how many a cluster has now, and waiting for a machine that was lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from codectok.pipelines.engine.executors.ray_address import answer_failure
from codectok.train.config import TrainConfig

ANSWER_SECONDS = 2.0
POLL_SECONDS = 1.0
NOTE_SECONDS = 30.0
# Resources of ranks that have ended are free a moment later.
RELEASE_SECONDS = 5.0
ASKED_AT_ONCE = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RankLimits:
    """Numbers of ranks that a run may have.

    Attributes:
        wanted: number that it starts with, and returns to.
        least: smallest number with which it continues.
        batch_size: segments of a batch, which ranks share evenly.
        kind: resource of a rank.
    """

    wanted: int
    least: int
    batch_size: int
    kind: Literal["CPU", "GPU"]

    def usable(self, places: int) -> int | None:
        """Return the largest allowed number of ranks for `places`; None if there is none."""
        for ranks in range(min(places, self.wanted), self.least - 1, -1):
            if ranks == self.wanted or self.batch_size % ranks == 0:
                return ranks
        return None


def fit_accumulation(config: TrainConfig, ranks: int, wanted: int) -> TrainConfig:
    """Raise `accumulation` if there are fewer `ranks` than `wanted`, so that microbatches do not grow."""
    if ranks == wanted:
        return config
    share = config.data.batch_size // ranks
    enough = (n for n in range(1, share + 1) if share % n == 0 and n * ranks >= config.accumulation * wanted)
    return config.model_copy(update={"accumulation": next(enough, share)})


def free_places(kind: str) -> int:
    """Count free places for ranks on machines that answer; Ray counts a lost machine for half a minute."""
    import ray

    nodes: Any = ray.nodes
    free: Any = ray.available_resources
    alive = [node for node in nodes() if node["Alive"] and node["Resources"].get(kind, 0)]

    def answers(node: Any) -> bool:
        return answer_failure(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}", ANSWER_SECONDS) is None

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        answering = sum(
            node["Resources"][kind] for node, answer in zip(alive, pool.map(answers, alive), strict=True) if answer
        )
    return int(min(answering, free().get(kind, 0)))


def wait_for_places(
    limits: RankLimits, seconds: float, interrupted: threading.Event, check_ray: Callable[[], None]
) -> int:
    """Wait for places for all ranks, and after `seconds` for as many as there are; return the number of ranks.

    Raises:
        KeyboardInterrupt: `interrupted` was set.
    """
    begun = time.monotonic()
    noted = begun - NOTE_SECONDS + RELEASE_SECONDS
    while not interrupted.is_set():
        check_ray()
        places = free_places(limits.kind)
        ranks = limits.usable(places)
        now = time.monotonic()
        if ranks == limits.wanted:
            return ranks
        if ranks is not None and now - begun > seconds:
            log.warning(
                "Training continues with %d of %d ranks; it uses more once there are places.", ranks, limits.wanted
            )
            return ranks
        if now - noted > NOTE_SECONDS:
            noted = now
            log.warning("%s", _waiting_note(limits, places, seconds - (now - begun)))
        interrupted.wait(POLL_SECONDS)
    raise KeyboardInterrupt


def _waiting_note(limits: RankLimits, places: int, left: float) -> str:
    note = (
        f"Training waits for places for {limits.wanted} ranks: the machines of the cluster that answer have"
        f" {places} free {limits.kind}s; end other programs there, or start a machine"
    )
    fewer = limits.usable(places)
    if fewer is None:
        return f"{note}. At least {limits.least} are needed."
    return f"{note}. In {max(0.0, left):.0f} s it continues with {fewer}."
