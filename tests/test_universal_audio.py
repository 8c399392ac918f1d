"""The script that downloads recordings of speech, music and effects: categories, held-out recordings, hashes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.hosts import ROOT

FILES = {
    "klettres-data": [
        "usr/share/klettres/de/alpha/a.ogg",
        "usr/share/klettres/fr/syllab/ba.ogg",
        "usr/share/doc/x.ogg",
    ],
    "tuxpaint-stamps-default": ["stamps/animals/cow_desc_el.ogg", "stamps/animals/cow_desc_fr.ogg", "stamps/cow.ogg"],
    "asterisk-core-sounds-en-g722": ["sounds/en/hello.g722", "sounds/en/hello.flac", "sounds/en/silence/1.flac"],
    "wesnoth-1.16-music": ["data/core/music/sad.ogg", "data/core/music/battle.ogg", "data/core/music/silence.ogg"],
}
TRAINING = {
    ("speech", "usr/share/klettres/fr/syllab/ba.ogg"),
    ("speech", "stamps/animals/cow_desc_fr.ogg"),
    ("speech", "sounds/en/hello.flac"),
    ("music", "data/core/music/battle.ogg"),
}
VALIDATION = {
    ("speech", "usr/share/klettres/de/alpha/a.ogg"),
    ("speech", "stamps/animals/cow_desc_el.ogg"),
    ("music", "data/core/music/sad.ogg"),
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("universal_audio", ROOT / "scripts" / "universal_audio.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_recordings_have_categories_and_held_out_ones_are_kept_apart(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in script.PACKAGES:
        folder = tmp_path / "recordings" / package.name
        folder.mkdir(parents=True)
        for name in FILES.get(package.name, []):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    monkeypatch.setattr(sys, "argv", ["universal_audio.py", str(tmp_path)])
    script.main()
    found = {}
    for manifest in ("train", "validation"):
        rows = [json.loads(line) for line in (tmp_path / f"{manifest}.jsonl").read_text().splitlines()]
        found[manifest] = {
            (row["category"], row["id"].partition("/")[2]) for row in rows if row["category"] != "effects"
        }
        assert all((tmp_path / row["path"]).is_file() for row in rows)
    assert found == {"train": TRAINING, "validation": VALIDATION}


def test_a_tenth_of_the_effects_is_held_out(script: ModuleType) -> None:
    rule = script.Rule(r"\.ogg$", "effects")
    held_out = sum(script._is_held_out(rule, f"sounds/{number}.ogg") for number in range(5_000))
    assert 400 < held_out < 600


def test_a_package_with_another_hash_is_refused(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packages").mkdir()
    for package in script.PACKAGES:
        (tmp_path / "packages" / f"{package.name}.deb").write_bytes(b"changed")
    monkeypatch.setattr(sys, "argv", ["universal_audio.py", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"has the SHA-256 {hashlib.sha256(b'changed').hexdigest()} instead of"):
        script.main()
    assert not (tmp_path / "train.jsonl").exists()


def test_packages_kept_for_an_independent_test_are_not_used(script: ModuleType) -> None:
    names = {package.name for package in script.PACKAGES}
    kept = {"fillets-ng-data-cs", "fillets-ng-data", "asterisk-core-sounds-it-g722", "asterisk-core-sounds-fr-g722"}
    assert not names & kept
    assert len(names) == len(script.PACKAGES)
