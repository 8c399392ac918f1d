"""Templates of documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from codectok import InputError
from codectok.exports.sequences.templates import (
    TASKS,
    TEXT_TEMPLATE,
    VOICE_TEMPLATE,
    CodesItem,
    TextItem,
    TokenItem,
    load_template,
)


@pytest.mark.parametrize("name", [*TASKS, TEXT_TEMPLATE, VOICE_TEMPLATE])
def test_templates_of_tasks_end_with_eos(name: str) -> None:
    template = load_template(name)
    assert template.end == (TokenItem(token="eos"),)
    assert template.has_codes == (name != TEXT_TEMPLATE)
    assert template.has_text == (name != "audio")
    assert template.has_voice == (name == VOICE_TEMPLATE)
    assert (template.document == "recording") == (name == "interleaved")


def test_template_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('begin: [{text: "In {language}: "}]\nrow:\n  - codes: row\n  - text: "{text}"\nend: [{token: eos}]')
    template = load_template(path)
    assert template.items == (
        TextItem(text="In {language}: "),
        CodesItem(codes="row"),
        TextItem(text="{text}"),
        TokenItem(token="eos"),
    )
    assert TextItem(text="{a}-{b}-{a}").fill({"a": "{b}", "b": "2"}) == "{b}-2-{b}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row: [", "not valid YAML"),
        ("begin: []", "cannot be understood at row"),
        ("row: [{code: row}]", "cannot be understood at row.0"),
        ("row: [{codes: other}]", "cannot be understood at row.0"),
        ("row: [{text: a, token: b}]", "cannot be understood at row.0"),
        ("rows: []", "cannot be understood"),
        ("- a", "cannot be understood at its top"),
        ('row: [{text: "{words}"}]', "has a field {words}"),
        ("begin: [{codes: row}]\nrow: [{token: eos}]", "outside `row`"),
        ("row: [{codes: row}]\nend: [{codes: voice}]", "has codes under `end`"),
        ("row: []", "cannot be understood at row"),
    ],
)
def test_invalid_template_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_template(path)


def test_missing_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a YAML file, or one of audio, tts"):
        load_template(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        load_template(tmp_path / "binary.yaml")
