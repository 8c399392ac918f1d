"""A cluster whose shared disk is an object store: two nodes, one of which is lost in the middle of a job."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import soundfile

from codectok import Codec
from codectok.storage import Storage, open_storage
from tests.helpers.audio import tone
from tests.helpers.clusters import RayNode, ray_head, ray_node
from tests.helpers.command_line import codectok, one_line
from tests.helpers.jobs import without_times
from tests.helpers.ray_workers import stop_in_units
from tests.helpers.storage import store_environment, upload

pytestmark = pytest.mark.cluster

UNITS = 10
UNIT_SECONDS = 20.0
WAIT_SECONDS = 120.0
PLACES_AND_TIMES = tuple(f"_codectok/{name}" for name in ("locks/", "runs/", "plan"))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "speech"
    folder.mkdir()
    for number in range(UNITS):
        soundfile.write(folder / f"{number:02d}.flac", tone(UNIT_SECONDS, 24_000, 200 + 20 * number, number), 24_000)
    return folder


@pytest.fixture(scope="module")
def environment(s3: str) -> dict[str, str]:
    """Variables of the driver and of all nodes."""
    return {"RAY_AUTH_MODE": "disabled", **store_environment()}


@pytest.fixture(scope="module")
def nodes(environment: Mapping[str, str]) -> Iterator[RayNode]:
    """A cluster of a head and another node."""
    with (
        tempfile.TemporaryDirectory(prefix="head") as folder,
        ray_head(Path(folder), environment) as address,
        ray_node(address, Path(folder), environment) as node,
    ):
        yield node


def start(environment: Mapping[str, str], *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, **environment}
    command = [sys.executable, "-m", "codectok", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, output
    return output


def lose_in_a_unit(node: RayNode, process: subprocess.Popen[str]) -> None:
    """Kill a node while it makes a unit."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not stop_in_units(node.process.pid):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    node.kill()


def outputs(storage: Storage) -> dict[str, bytes]:
    """Contents of all files but the ones that name places, processes and times."""
    names = [name for name in storage.sizes() if not name.startswith(PLACES_AND_TIMES)]
    return {name: without_times(name, storage.read(name)) for name in names}


def chain(place: str, codec: Path) -> dict[str, list[object]]:
    """Commands from recordings in `place` to sequences of a language model, by their outputs."""
    seconds = str(UNIT_SECONDS)
    codec_options = ["--codec", codec, "--device", "cpu"]
    return {
        "shards": ["shard", f"{place}/speech", f"{place}/shards", "--shard-seconds", seconds],
        "tokens": ["tokenize", f"{place}/shards", f"{place}/tokens", *codec_options, "--part-seconds", seconds],
        "sequences": ["export", "sequences", f"{place}/tokens", f"{place}/sequences", "--offset", "400", "--eos", "0"],
    }


def test_chain_in_a_store_survives_the_loss_of_a_node(
    nodes: RayNode, environment: Mapping[str, str], recordings: Path, s3: str, tmp_path: Path
) -> None:
    """From recordings to sequences, with the bytes of the same commands on a disk."""
    codec_folder = tmp_path / "codec"
    Codec.from_config("small").save_pretrained(codec_folder)  # its units are long enough to be seen
    local, url = recordings.parent, upload(recordings, f"{s3}/cluster/speech").removesuffix("/speech")
    for command in chain(str(local), codec_folder).values():
        assert codectok(*command, "--engine", "local").exit_code == 0
    for name, command in chain(url, codec_folder).items():
        process = start(environment, *command, "--address", nodes.address)
        if name == "tokens":
            lose_in_a_unit(nodes, process)
        assert ("its worker died" in finish(process)) == (name == "tokens")
    for name in chain(url, codec_folder):
        assert codectok("verify", f"{url}/{name}").exit_code == 0
        assert outputs(open_storage(f"{url}/{name}")) == outputs(open_storage(local / name))
        assert not open_storage(f"{url}/{name}/_codectok/tmp").sizes()


def test_nodes_that_cannot_reach_the_store_are_named(environment: Mapping[str, str], recordings: Path, s3: str) -> None:
    """Nodes have their own variables: the ones of the driver do not travel."""
    url = upload(recordings, f"{s3}/refused/speech")
    variables = {"RAY_AUTH_MODE": "disabled", "AWS_EC2_METADATA_DISABLED": "true"}
    with tempfile.TemporaryDirectory(prefix="head") as folder, ray_head(Path(folder), variables) as address:
        process = start(environment, "shard", url, f"{s3}/refused/shards", "--address", address)
        text = one_line(process.communicate(timeout=WAIT_SECONDS)[0])
    assert process.returncode == 1
    assert "Not all machines of the cluster" in text
    assert "in the environment of `ray start`" in text
    assert "Traceback" not in text and text.count("Error:") == 1
