"""The machines of the cluster and their resources, asked for in a way that fails if the head does not answer.

`ray.nodes` waits for a head that is gone, and aborts this process if another one takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ANSWER_SECONDS = 10.0
ALIVE = 0


class Nodes:
    """Machines that are alive, with their resources by name.

    Args:
        resources: of each machine, by the identity that Ray gave it.
    """

    def __init__(self, resources: Mapping[str, Mapping[str, float]]) -> None:
        self.resources = resources

    def __contains__(self, node: str) -> bool:
        return node in self.resources

    def __len__(self) -> int:
        return len(self.resources)

    def total(self, name: str) -> float:
        """Amount of a resource, "CPU" or "GPU", of all machines."""
        return sum(one.get(name, 0.0) for one in self.resources.values())


def cluster_nodes() -> Nodes | None:
    """Ask for the machines; None if the head does not answer now."""
    import ray
    from ray._private import worker
    from ray.exceptions import RayError

    client: Any = getattr(worker.global_worker, "gcs_client", None)
    if client is None or worker._global_node is None:  # a client (ray://) asks its server
        ask: Any = ray.nodes
        return Nodes({node["NodeID"]: node["Resources"] for node in ask() if node["Alive"]})
    try:
        found = client.get_all_node_info(timeout=ANSWER_SECONDS)
    except RayError:
        return None  # the watch of the cluster decides when it is lost
    return Nodes({node.hex(): dict(info.resources_total) for node, info in found.items() if info.state == ALIVE})
