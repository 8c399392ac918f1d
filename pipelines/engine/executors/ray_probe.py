"""Asks the head of a Ray cluster for its versions, or its server of Ray Client for a sign.

Prints a line when it begins to ask, since the import of Ray takes its time, and then the answer as JSON.

Runs in a process of its own: Ray tries for many seconds and prints each failure, and without a token that it needs it
aborts its process.
"""

from __future__ import annotations

import importlib
import json
import sys
import uuid
from typing import Any

CLUSTER_METADATA, NAMESPACE = b"CLUSTER_METADATA", b"cluster"
# Names of answers.
VERSIONS, ANSWERED, REFUSED, OTHER = "versions", "answered", "refused", "other"
CLIENT = "client"
ASKS = "asks"
CLIENT_SECONDS = 5.0


def probe(address: str) -> dict[str, Any]:
    """Return the versions of the cluster at `HOST:PORT`, or the reason why there are none."""
    from ray import exceptions

    raylet: Any = importlib.import_module("ray._raylet")
    refusal = getattr(exceptions, "AuthenticationError", ())
    try:
        found = raylet.GcsClient(address=address).internal_kv_get(CLUSTER_METADATA, namespace=NAMESPACE)
    except Exception as error:  # Ray raises its own kinds, which differ between versions
        if "Method not found" in str(error):
            return {OTHER: f"the server there is not its head; for its server of Ray Client write ray://{address}"}
        kind = REFUSED if isinstance(error, refusal) or "InvalidAuthToken" in str(error) else OTHER
        return {kind: str(error)}
    return {VERSIONS: json.loads(found)} if found else {OTHER: "it is still starting"}


def probe_client(address: str) -> dict[str, Any]:
    """Tell if the server of Ray Client at `HOST:PORT` answers; it does not tell versions before it is joined."""
    grpc: Any = importlib.import_module("grpc")
    try:
        open_channel: Any = importlib.import_module("ray._private.grpc_utils").init_grpc_channel
    except ImportError:  # Ray before tokens
        open_channel = grpc.insecure_channel
    messages: Any = importlib.import_module("ray.core.generated.ray_client_pb2")
    services: Any = importlib.import_module("ray.core.generated.ray_client_pb2_grpc")
    server = services.RayletDriverStub(open_channel(address))
    metadata = [("client_id", uuid.uuid4().hex)]
    try:
        server.KVGet(messages.KVGetRequest(key=CLUSTER_METADATA), timeout=CLIENT_SECONDS, metadata=metadata)
    except grpc.RpcError as error:
        code, details = error.code(), str(error.details())
        if code == grpc.StatusCode.UNAUTHENTICATED:
            return {REFUSED: details}
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return {OTHER: "the server there is not one of Ray Client, whose port usually is 10001"}
        return {OTHER: details}
    return {ANSWERED: True}


if __name__ == "__main__":
    importlib.import_module("ray._raylet")
    if sys.argv[2:] == [CLIENT]:
        importlib.import_module("ray.core.generated.ray_client_pb2_grpc")
    sys.stdout.write(f"{ASKS}\n")
    sys.stdout.flush()
    found = (probe_client if sys.argv[2:] == [CLIENT] else probe)(sys.argv[1])
    sys.stdout.write(json.dumps(found) + "\n")
