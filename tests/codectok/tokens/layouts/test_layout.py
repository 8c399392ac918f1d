"""Validation of layouts, and layouts from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from codectok import CodectokError, InputError
from codectok.tokens.layouts.layout import TokenLayout
from codectok.tokens.layouts.loading import PRESETS, load_layout
from codectok.tokens.vocabulary import Vocabulary

MINE: dict[str, Any] = {"name": "mine", "kind": "template", "token": "<{codebook}:{code}>"}


def write_layout(folder: Path, **values: Any) -> Path:
    path = folder / "layout.json"
    path.write_text(json.dumps(MINE | values))
    return path


def test_layout_file_and_hash(tmp_path: Path) -> None:
    layout = load_layout(write_layout(tmp_path))
    assert layout == TokenLayout(**MINE)
    assert Vocabulary(4, 2, 1, 100, layout).token(105) == "<1:1>"
    assert layout.sha256 == TokenLayout(**MINE).sha256 != load_layout(write_layout(tmp_path, order="parallel")).sha256
    hashes = {load_layout(name).sha256 for name in PRESETS}
    assert len(hashes) == len(PRESETS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"token": None}, "needs token"),
        ({"token": "<{codes}>"}, "field {codes}"),
        ({"token": "<{codebook}>"}, "needs one of the fields code"),
        ({"token": "<{codebook}{code}>"}, "between its fields"),
        ({"token": "<{codebook}0{code}>"}, "between its fields"),
        ({"token": "1{code}"}, "before or behind"),
        ({"token": "<{code}}>"}, "brace"),
        ({"kind": "words"}, "kind"),
        ({"order": "delayed"}, "padding"),
        ({"special_tokens": ["a", "a"]}, "twice"),
        ({"begin_audio": "<b>"}, "special_tokens lacks"),
        ({"special_tokens": ["<b>"], "begin_audio": "<b>", "padding": "<b>"}, "padding"),
        ({"first_id": 5}, "no first_id"),
        ({"kind": "ids"}, "needs first_id"),
        ({"kind": "ids", "first_id": 0, "special_tokens": ["a"], "special_tokens_place": "before"}, "no room"),
        ({"kind": "characters", "first_character": 0xE000}, "no token"),
        ({"kind": "characters", "token": None, "first_character": 65}, "private-use"),
        ({"kind": "characters", "token": None, "first_character": 65, "last_character": 60}, "before"),
        ({"kind": "characters", "token": None, "first_character": 65, "last_character": 0xE000}, "surrogates"),
        ({"name": "a b"}, "name"),
        ({"name": "llasa"}, "another name"),
        ({"colour": "red"}, "colour"),
        ({"delay": 0}, "delay"),
    ],
)
def test_invalid_layouts_are_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        load_layout(write_layout(tmp_path, **values))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "a", "[1]", "\0", "a: &a [*a]", "{" * 5000, "name: 5\nkind: 3"])
def test_hostile_layout_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "layout.yaml"
    path.write_text(text)
    with pytest.raises(CodectokError, match="layout"):
        load_layout(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="UTF-8"):
        load_layout(path)
    with pytest.raises(InputError, match=r"no layout .*llasa"):
        load_layout(tmp_path / "missing")


def test_private_use_area_is_the_default_room(tmp_path: Path) -> None:
    values = {"kind": "characters", "token": None}
    small = load_layout(write_layout(tmp_path, first_character=0xE000, **values))
    large = load_layout(write_layout(tmp_path, first_character=0xF0000, **values))
    assert Vocabulary(6400, layout=small).token(152_064 + 6399) == "\uf8ff"
    with pytest.raises(InputError, match="6,400 characters"):
        Vocabulary(6401, layout=small)
    assert Vocabulary(32_768, layout=large).token(152_064) == "\U000f0000"


def test_special_tokens_cannot_be_codes(tmp_path: Path) -> None:
    layout = load_layout(write_layout(tmp_path, special_tokens=["<0:3>"]))
    with pytest.raises(InputError, match="also a code"):
        Vocabulary(4, layout=layout)
    assert Vocabulary(3, layout=layout).id_of("<0:3>") == 152_064 + 3
