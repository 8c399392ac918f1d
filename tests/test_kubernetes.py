"""Files of `deploy/kubernetes/`: pods by Kubernetes' own schemas, the rest by the fields of KubeRay."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.helpers.storage import DATA

FOLDER = Path(__file__).parents[1] / "deploy" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
SCHEMA = yaml.safe_load((DATA / "kuberay.yaml").read_text())
HEAD = ("spec", "rayClusterSpec", "headGroupSpec")
WORKERS = ("spec", "rayClusterSpec", "workerGroupSpecs", 0)


def kuberay_faults(document: object) -> list[str]:
    """Places and reasons of everything that KubeRay's fields do not allow."""
    kind = document.get("kind") if isinstance(document, dict) else None
    schema = {"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]} if kind in SCHEMA["$defs"] else SCHEMA
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


def pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The templates of a cluster as pods."""
    spec = document["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **template.get("metadata", {})}, **template}
        for template in (group["template"] for group in groups)
    ]


def check_pods(document: dict[str, Any]) -> None:
    """Validate pods by the schemas that the package brings, the newest and the oldest, and refuse unknown fields."""
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for version in (kubernetes.latest_version(), "1.27"):
        for pod in pods(document):
            kubernetes.validate(pod, version, strict=True)


def rayjob() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "rayjob.yaml").read_text())
    return found


def changed(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """The RayJob with another value at a place."""
    document = copy.deepcopy(rayjob())
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


def test_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert len(FILES) == 2


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_has_fields_of_kuberay(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    assert kuberay_faults(document) == []
    jsonschema.Draft202012Validator(SCHEMA).validate(document)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_has_pods_of_kubernetes(path: Path) -> None:
    check_pods(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("sepc",), {}, "sepc"),
        (("metadata", "name"), "Codectok", "Codectok"),
        (("kind",), "RayJobs", "not valid"),
        (("apiVersion",), "ray.io/v1alpha1", "'ray.io/v1' was expected"),
        (("spec", "entryPoint"), "codectok", "entryPoint"),
        (("spec", "backoffLimits"), 3, "backoffLimits"),
        (("spec", "backoffLimit"), "3", "'3' is not of type 'integer'"),
        (("spec", "shutdownAfterJobFinishes"), False, "True was expected"),
        (("spec", "submissionMode"), "K8SJobMode", "K8SJobMode"),
        (("spec",), {"entrypoint": "codectok"}, "not valid under any"),
        (("spec", "rayClusterSpec", "authOption"), {"mode": "token"}, "authOption"),
        (("spec", "rayClusterSpec", "authOptions"), {"mode": "tokens"}, "tokens"),
        (("spec", "rayClusterSpec", "enableInTreeAutoScaling"), True, "enableInTreeAutoScaling"),
        (("spec", "rayClusterSpec", "autoscalerOptions"), {"idleTimeoutSecond": 1}, "idleTimeoutSecond"),
        ((*HEAD, "rayStartParam"), {}, "rayStartParam"),
        ((*HEAD, "rayStartParams"), {"num-cpus": 0}, "0 is not of type 'string'"),
        ((*HEAD, "replicas"), 1, "replicas"),
        ((*HEAD, "template"), {"metadata": {}}, "'spec' is a required property"),
        ((*WORKERS, "minReplica"), 1, "minReplica"),
        ((*WORKERS, "maxReplicas"), -1, "-1 is less than"),
        ((*WORKERS, "groupName"), "GPU", "GPU"),
        ((*WORKERS, "template", "specs"), {}, "specs"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_faults_in_fields_of_kuberay_are_found(path: tuple[str | int, ...], value: object, fault: str) -> None:
    assert any(fault in found for found in kuberay_faults(changed(path, value)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("image",), 1),
        (("imagee",), "codectok"),
        (("resources", "request"), {}),
        (("resources", "limits"), ["cpu"]),
        (("volumeMounts", 0, "mounthPath"), "/data"),
        (("volumeMounts", 0), {"name": "data"}),
        (("ports",), [{"containerPort": "8080"}]),
        (("env",), [{"name": "A", "valeu": "1"}]),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("group", [HEAD, WORKERS], ids=["head", "workers"])
def test_faults_in_pods_are_found(group: tuple[str | int, ...], path: tuple[str | int, ...], value: object) -> None:
    document = changed((*group, "template", "spec", "containers", 0, *path), value)
    assert kuberay_faults(document) == []
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    with pytest.raises(kubernetes.ValidationError):
        check_pods(document)


@pytest.mark.parametrize("claim", [{"claimNames": "codectok-data"}, {"claimName": 1}])
def test_faults_in_volumes_are_found(claim: dict[str, object]) -> None:
    document = changed((*HEAD, "template", "spec", "volumes", 0, "persistentVolumeClaim"), claim)
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    with pytest.raises(kubernetes.ValidationError):
        check_pods(document)
