"""Asks the head of a Ray cluster for its versions, and prints them as JSON.

Runs in a process of its own: Ray tries for many seconds and prints each failure, and without a token that it needs it
aborts its process.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

CLUSTER_METADATA, NAMESPACE = b"CLUSTER_METADATA", b"cluster"
# Names of answers.
VERSIONS, REFUSED, OTHER = "versions", "refused", "other"


def probe(address: str) -> dict[str, Any]:
    """Return the versions of the cluster at `HOST:PORT`, or the reason why there are none."""
    from ray import exceptions

    raylet: Any = importlib.import_module("ray._raylet")
    refusal = getattr(exceptions, "AuthenticationError", ())
    try:
        found = raylet.GcsClient(address=address).internal_kv_get(CLUSTER_METADATA, namespace=NAMESPACE)
    except Exception as error:  # Ray raises its own kinds, which differ between versions
        kind = REFUSED if isinstance(error, refusal) or "InvalidAuthToken" in str(error) else OTHER
        return {kind: str(error)}
    return {VERSIONS: json.loads(found)} if found else {OTHER: "it is still starting"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(sys.argv[1])) + "\n")
