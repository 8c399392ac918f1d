"""Files of jobs, tables and configurations that are damaged: one sentence, whatever reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codectok.errors import CodectokError, ConfigError, InputError, damage_errors
from codectok.parsing import parse_json, parse_yaml
from tests.helpers.audio import tone
from tests.helpers.command_line import assert_refused, codectok

LOCAL = ("--engine", "local", "--device", "cpu")
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, codec_folder: Path) -> Path:
    """A folder `speech`, and the table `table` of it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "speech").mkdir()
    for number in range(3):
        soundfile.write(folder / "speech" / f"{number}.wav", tone(0.5, 24_000, 200 + number), 24_000)
    done = codectok("tokenize", folder / "speech", folder / "table", "--codec", codec_folder, *LOCAL)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def table(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "table", tmp_path / "table"))


def change_table(path: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(edit(pq.read_table(path)), path)


PLAN_DAMAGE: dict[str, Callable[[pa.Table], pa.Table]] = {
    "no rows": lambda t: t.slice(0, 0),
    "more rows": lambda t: pa.concat_tables([t, t]),
    "no column": lambda t: t.drop_columns([t.schema.names[0]]),
    "text": lambda t: t.set_column(0, t.schema.names[0], pa.array(["x"] * len(t))),
    "none": lambda t: t.set_column(0, t.schema.names[0], pa.nulls(len(t), t.schema.field(0).type)),
}


@pytest.mark.parametrize("name", PLAN_DAMAGE)
@pytest.mark.parametrize("file", ["000-units.parquet", "000-sources.parquet"])
def test_damaged_plan_is_told(made: Path, table: Path, codec_folder: Path, name: str, file: str) -> None:
    if (name, file) == ("more rows", "000-sources.parquet"):
        pytest.skip("rows behind the planned ones are not read")
    change_table(table / "_codectok" / "plan" / file, PLAN_DAMAGE[name])
    (table / "part-000000.parquet").unlink()
    again = codectok("tokenize", made / "speech", table, "--codec", codec_folder, *LOCAL)
    assert_refused(again, "plan", code=again.exit_code)
    assert again.exit_code in (1, 2)


def test_plan_that_names_another_dataset_is_told(table: Path, made: Path, codec_folder: Path) -> None:
    path = table / "_codectok" / "plan.json"
    plan = json.loads(path.read_text())
    roots = plan["generations"][0]["roots"]
    plan["generations"][0]["roots"] = {f"{name}x": root for name, root in roots.items()}
    path.write_text(json.dumps(plan))
    (table / "part-000000.parquet").unlink()
    for command in (("verify", table), ("tokenize", made / "speech", table, "--codec", codec_folder, *LOCAL)):
        done = codectok(*command)
        assert done.exit_code in (1, 2)
        assert_refused(done, code=done.exit_code)


def test_column_name_that_is_not_utf8_is_told(table: Path, codec_folder: Path, tmp_path: Path) -> None:
    path = table / "part-000000.parquet"
    data = path.read_bytes()
    assert data.count(b"duration") > 1
    path.write_bytes(data.replace(b"duration", b"durati\xe5n"))
    commands = (
        ("decode", table, tmp_path / "clips", "--codec", codec_folder),
        ("verify", table),
        ("inspect", table),
        ("export", "sequences", table, tmp_path / "sequences", "--engine", "local"),
        ("tokenize", path, tmp_path / "again", "--codec", codec_folder, *LOCAL),
    )
    for command in commands:
        done = codectok(*command)
        assert done.exit_code in (1, 2)
        assert_refused(done, code=done.exit_code)


@pytest.mark.parametrize("content", [DEEP, "", "{}", '{"described": 3}', "9" * 5000], ids=range(5))
@pytest.mark.parametrize("file", ["stats.json", "plan.json", "summary.json", "records/000000.json"])
def test_damaged_json_of_a_job_is_told_or_written_again(made: Path, table: Path, file: str, content: str) -> None:
    (table / "_codectok" / file).write_text(content)
    verified = codectok("verify", table)
    if verified.exit_code:
        assert_refused(verified, code=verified.exit_code)
    assert file == "summary.json" or verified.exit_code in (1, 2)


TABLE_DAMAGE: dict[str, Callable[[pa.Table], pa.Table]] = {
    "no id": lambda t: t.set_column(0, "id", pa.nulls(len(t), pa.string())),
    "numbers": lambda t: t.set_column(t.schema.names.index("codes"), "codes", pa.array([1] * len(t))),
    "no codes": lambda t: t.drop_columns(["codes"]),
    "twice": lambda t: t.append_column("codes", t["codes"]),
    "not finite": lambda t: t.set_column(
        t.schema.names.index("duration"), "duration", pa.array([float("nan")] * len(t))
    ),
    "beyond": lambda t: t.set_column(
        t.schema.names.index("codes"), "codes", pa.array([[60_000]] * len(t), pa.list_(pa.uint16()))
    ),
    "metadata": lambda t: t.replace_schema_metadata(
        {b"codectok": (t.schema.metadata[b"codectok"].decode().replace('"n_codebooks":1', '"n_codebooks":10000000'))}
    ),
}


@pytest.mark.parametrize("name", TABLE_DAMAGE)
def test_damaged_table_is_told_by_every_reader(table: Path, codec_folder: Path, tmp_path: Path, name: str) -> None:
    change_table(table / "part-000000.parquet", TABLE_DAMAGE[name])
    shutil.rmtree(table / "_codectok")
    for command in (
        ("decode", table, tmp_path / "wav", "--codec", codec_folder, "--device", "cpu"),
        ("inspect", table),
        ("export", "sequences", table, tmp_path / "sequences", "--engine", "local"),
        ("export", "unitts", table, tmp_path / "unitts", "--task", "audio", "--engine", "local"),
    ):
        result = codectok(*command)
        assert "Traceback" not in result.output
        assert_refused(result, code=result.exit_code)


@pytest.mark.parametrize(
    "array",
    [np.zeros((3, 7), np.int64), np.zeros(3, np.int64), np.array(["a"]), np.full((2, 1), -1), np.full((2, 1), 1e9)],
    ids=range(5),
)
def test_npz_with_other_arrays_is_told(made: Path, codec_folder: Path, tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "codes.npz"
    with np.load(_encoded(made, codec_folder, tmp_path)) as arrays:
        np.savez_compressed(path, codectok=arrays["codectok"], clip=array)
    assert_refused(codectok("inspect", path), "clip")


def _encoded(made: Path, codec_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "sound.npz"
    assert codectok("encode", made / "speech", path, "--codec", codec_folder, "--device", "cpu").exit_code == 0
    return path


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [BOMB, "a: &a [*a]", "a: " + "[" * 5000, "- " * 3000, "a: !!bool x", "a: !!timestamp x", "a: " + "9" * 5000,
     "a: !!python/object/apply:os.system ['true']", "x" * 2_000_000, "a: " + "[" * 90 + "]" * 90, "{[1]: 2}", "\0"],
    ids=range(12),
)  # fmt: skip
def test_hostile_yaml_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_yaml(text, "config.yaml")
    assert str(refused.value).startswith("config.yaml")
    assert "\n" not in str(refused.value)
    (tmp_path / "t.yaml").write_text(text)
    assert_refused(codectok("train", tmp_path / "t.yaml", "--dry-run", "--engine", "local"), "t.yaml")


def test_values_that_are_repeated_are_read() -> None:
    text = "a: &a {x: [1, 2]}\nb: *a\nc: *a\n"
    assert parse_yaml(text, "config.yaml") == {name: {"x": [1, 2]} for name in "abc"}


@pytest.mark.parametrize("text", [DEEP, "9" * 5000, "[" * 90 + "]" * 90, json.dumps([0] * 1_100_000)], ids=range(4))
def test_hostile_json_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        parse_json(text, "config.json")


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError(), MemoryError(), OSError("thrift"), StopIteration()])
def test_errors_of_parsers_are_damage(error: Exception) -> None:
    with pytest.raises(InputError, match="a file is damaged"), damage_errors("a file", "write it again"):
        raise error


@pytest.mark.parametrize("error", [CodectokError("ours"), OSError(28, "No space left"), KeyboardInterrupt()])
def test_other_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)), damage_errors("a file", "write it again"):
        raise error
