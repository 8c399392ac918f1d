from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from codectok.config import preset
from codectok.errors import ConfigError
from codectok.train import load_stages, load_train_config
from codectok.train.config import changed_keys


def test_shipped_configuration_takes_overrides() -> None:
    config = load_train_config("nano", ["steps=7", "data.shards=a", "generator_optimizer.learning_rate=1e-4"])
    assert config.codec == preset("nano")
    assert (config.steps, config.data.shards, config.generator_optimizer.learning_rate) == (7, (Path("a"),), 1e-4)
    assert config.segment_samples % config.codec.frame_size == 0


def test_configurations_in_documentation_load(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        (tmp_path / "page.yaml").write_text(yaml.safe_dump({"output": "run", **yaml.safe_load(block)}))
        assert load_train_config(str(tmp_path / "page.yaml"), []).data.all_stages


def test_data_accepts_folders_mixtures_and_stages() -> None:
    def stages(*overrides: str) -> list[list[tuple[object, ...]]]:
        data = load_train_config("nano", list(overrides)).data
        return [
            [(source.shards, source.weight, source.replay) for source in stage.sources] for stage in data.all_stages
        ]

    alone = ((Path("a"), "s3://bucket/b"), None, None)
    assert stages("data.shards=[a, 's3://bucket/b']") == [[alone]]
    mixed = "[{shards: a, weight: 3}, {shards: [b, c], weight: 0.5}]"
    expected = [((Path("a"),), 3.0, None), ((Path("b"), Path("c")), 0.5, None)]
    assert stages("data.shards=null", f"data.sources={mixed}") == [expected]
    staged = f"[{{steps: 10, sources: [{{shards: a}}]}}, {{sources: {mixed}}}]"
    assert stages("data.shards=null", f"data.stages={staged}") == [[((Path("a"),), None, None)], expected]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stpes=7"], r"unknown key 'stpes' \(did you mean 'steps'\?\)"),
        (["data.batchsize=7"], r"unknown key 'data\.batchsize' \(did you mean 'batch_size'\?\)"),
        (["steps=many"], "steps"),
        (["steps=0"], "steps"),
        (["steps"], "write KEY=VALUE"),
        (["steps.more=1"], "single value"),
        (["codec=huge"], "no codec preset"),
        (["data.shards=[]"], "shards"),
        (["data.shards=null"], "data: give one of shards, sources and stages"),
        (["data.sources=[{shards: a}]"], "data: give one of shards, sources and stages"),
        (["data.shards=null", "data.sources=[{shards: a, weight: 1, replay: 1}]"], r"sources\.0: .* not both"),
        (["data.shards=null", "data.sources=[{shards: a, weight: 1}, {shards: b}]"], "weight"),
        (["data.shards=null", "data.sources=[{shards: a, weight: 0}]"], r"data\.sources\.0\.weight"),
        (
            ["data.shards=null", "data.sources=[{shard: a}]"],
            r"unknown key 'data\.sources\.0\.shard' \(did you mean 'shards'",
        ),
        (
            ["data.shards=null", "data.stages=[{sources: [{shards: a}]}, {sources: [{shards: b}]}]"],
            "but the last",
        ),
        (["data.shards=3"], r"data\.shards"),
        (["seed=[1"], "cannot be parsed"),
        (["data.segment_seconds=0.01"], r"segment_seconds must be at least 0\.085"),
        (["loss.mel=[]"], "mel"),
        (["loss.mel=[{n_fft: 512, hop_length: 1000, weight: 1}]"], "hop_length"),
        (["generator_optimizer.betas=[2, 3]"], "betas"),
        (["discriminators.scale.layers=[{channels: 6, kernel_size: 5, groups: 4}]"], "4 groups"),
        (
            ["discriminators.scale.layers=[{channels: 6, kernel_size: 5}, {channels: 8, kernel_size: 5, groups: 4}]"],
            "6 input",
        ),
        (["discriminators.period.channels=[]"], "channels"),
        (["discriminators.scale.layers=[]"], "layers"),
        (
            ["loss.mel=[{n_fft: 512, hop_length: 64, weight: 1}, {n_fft: 512, hop_length: 128, weight: 1}]"],
            "n_fft",
        ),
    ],
)
def test_invalid_settings_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_train_config("nano", overrides)


def test_stage_must_be_a_mapping() -> None:
    with pytest.raises(ConfigError, match=r"stage teacher is 'teacher'"):
        load_stages("dms", ["stages.teacher=teacher"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages={1: {base: teacher}}"], "the name of the stage 1 is no text"),
        (["output=2024"], "output is 2024; give the name of a folder"),
        (["output=s3://bucket/runs"], "output: s3://bucket/runs/teacher is a URL; give a folder on a disk"),
        (["stages.teacher.resume_from=s3://b/run"], "resume_from: s3://b/run is a URL"),
    ],
)
def test_names_of_runs_and_folders_are_checked(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_stages("dms", ["data.shards=shards", *overrides])


def test_base_is_relative_and_not_circular(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "common.yaml").write_text("base: nano\nseed: 7\n")
    (tmp_path / "runs" / "mine.yaml").write_text("base: common.yaml\ndata: {shards: here}\noutput: out\n")
    monkeypatch.chdir(tmp_path)
    assert load_train_config("runs/mine.yaml", []).seed == 7
    (tmp_path / "runs" / "common.yaml").write_text("base: mine.yaml\n")
    with pytest.raises(ConfigError, match="is its own base"):
        load_train_config("runs/mine.yaml", [])


def test_missing_configuration_lists_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"no configuration mega; .* base, dms, nano"):
        load_train_config("mega", [])


def test_changed_keys_excludes_resumable_keys() -> None:
    before = {"steps": 1, "loss": {"adversarial": 1.0, "mel": [1]}, "seed": 1}
    now = {"steps": 2, "loss": {"adversarial": 2.0, "mel": [1]}, "seed": 1}
    assert changed_keys(before, now) == ["loss.adversarial"]


@pytest.mark.parametrize(
    "setting",
    [
        "steps=99999999999999999999",
        "seed=99999999999999999999",
        "data.segment_seconds=1e15",
        "data.batch_size=9223372036854775807",
        "data.num_workers=1000000",
        "discriminators.period.kernel_size=9223372036854775807",
        "discriminators.period.channels=[9223372036854775807]",
        "discriminators.scale.n_scales=999999999999999999999999999999",
        "discriminators.stft.channels=9223372036854775807",
    ],
)
def test_absurd_number_is_refused_before_anything_is_built(setting: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(setting.partition("=")[0])):
        load_train_config("nano", [setting])
