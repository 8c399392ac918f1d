"""Files of `deploy/` are valid as far as tools tell, and their commands exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from codectok.cli.main import app

DEPLOY = Path(__file__).parents[1] / "deploy"
SCRIPTS = sorted(DEPLOY.rglob("*.sbatch"))
YAMLS = sorted(DEPLOY.rglob("*.yaml"))
# A command up to the end of its line, with continued lines; quotes around it are not part of it.
COMMAND = re.compile(r"codectok ((?:tokenize|shard|evaluate|export|train|verify)\b(?:[^\n\\']|\\\n)*)")
SLURM_VARIABLES = {"$sources": "in", "$output": "out", "$codec": "codec"}


def commands() -> list[tuple[str, list[str]]]:
    found = []
    for path in sorted(path for path in DEPLOY.rglob("*") if path.is_file()):
        text = path.read_text()
        text = re.sub(r"\n#\s+", " ", re.sub(r"\\\n#?\s*", " ", text)) if path.suffix == ".yaml" else text
        text = re.sub(r"\\\n\s*", " ", text).replace("${SLURM_ARRAY_TASK_ID:?}/${SLURM_ARRAY_TASK_COUNT:?}", "1/8")
        for match in COMMAND.finditer(text):
            words = [SLURM_VARIABLES.get(word, word) for word in shlex.split(match[1].partition(" &")[0])]
            found.append((path.name, words))
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_slurm_scripts_are_valid(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shellcheck = shutil.which("shellcheck", path=places)
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run([shellcheck, "--shell=bash", str(script)], check=True)


def test_commands_of_deploy_exist() -> None:
    """Each is parsed by the command line's own parser."""
    group: Any = typer.main.get_command(app)
    checked = set()
    for name, (verb, *rest) in ((name, words) for name, words in commands()):
        context = group.commands[verb].make_context(verb, list(rest))
        assert context.params
        checked.add(name)
    assert checked == {"array.sbatch", "rayjob.yaml", "raycluster.yaml", "cluster.yaml"}


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_yaml_describes_a_cluster(path: Path) -> None:
    found = yaml.safe_load(path.read_text())
    if path.parent.name != "kubernetes":
        types = found["available_node_types"]
        assert found["head_node_type"] in types
        return
    # `test_kubernetes` checks all fields.
    assert found["kind"] == {"rayjob.yaml": "RayJob", "raycluster.yaml": "RayCluster"}[path.name]
    cluster = found["spec"] if found["kind"] == "RayCluster" else found["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert len({group["template"]["spec"]["containers"][0]["image"] for group in groups}) == 1
