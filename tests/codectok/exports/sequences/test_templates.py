"""Templates of documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from codectok import InputError
from codectok.exports.sequences.template_files import TASKS, TEXT_TEMPLATE, VOICE_TEMPLATE, load_template
from codectok.exports.sequences.templates import CodesItem, PatternTemplate, TextItem, TokenItem


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
    with pytest.raises(InputError, match="give a YAML file, a pattern such as ATAT, or one of audio, tts"):
        load_template(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        load_template(tmp_path / "binary.yaml")


def test_patterns_are_named_by_task() -> None:
    for task, patterns in (
        ("AT", {"AT": 1.0}),
        ("ATAT:2,TATA", {"ATAT": 2.0, "TATA": 1.0}),
        ("A:0.5,TTT:3", {"A": 0.5, "TTT": 3.0}),
    ):
        template = load_template(task)
        assert isinstance(template, PatternTemplate)
        assert template.patterns == patterns
        assert template.document == "recording"
        assert template.alone == load_template("asr")


AUDIO_AND_TEXT = 'audio: [{codes: row}]\ntext: [{text: "{text}"}]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patterns: {ATX: 1}", "cannot be understood at patterns"),
        ("patterns: {}", "cannot be understood at patterns"),
        ("patterns: {AT: 0}", "cannot be understood at patterns.AT"),
        ("patterns: {AT: 1}\nend: [{codes: row}]", "codes elsewhere than under `audio`"),
        ("patterns: {AT: 1}\nbegin: [{codes: voice}]", "codes elsewhere than under `audio`"),
        ("patterns: {AT: 1}\nbetween_texts: '{a}'", "cannot be understood at between_texts"),
        ("patterns: {AT: 1}\nalone: nothing", "There is no template nothing"),
        ("patterns: {AT: 1}\nalone: tts-voice", "without a voice, as `alone`"),
        ("patterns: {AT: 1}\nalone: ATAT", "a task or a file with `row`"),
        ("patterns: {AT: 1}\nalone: [{codes: row}]", "a task or a file with `row`"),
        ('patterns: {AT: 1}\nto_text: [{text: "{words}"}]', "has a field {words}"),
    ],
)
def test_invalid_pattern_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(AUDIO_AND_TEXT + text)
    with pytest.raises(InputError, match=message):
        load_template(path)
    path.write_text(AUDIO_AND_TEXT + "patterns: {AT: 1}")
    load_template(path)
    for task, problem in (("ATAT:2,ATAT", "twice"), ("AT:1.2.3", "must be a number"), ("AT:0", "above 0, not .0.")):
        with pytest.raises(InputError, match=problem):
            load_template(task)


def test_pattern_needs_audio_and_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("patterns: {AT: 1}\naudio: [{token: eos}]\ntext: [{token: eos}]")
    with pytest.raises(InputError, match="needs `codes: row` under `audio`"):
        load_template(path)
