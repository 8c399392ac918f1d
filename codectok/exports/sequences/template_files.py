"""Loads templates of documents: small YAML files, some of which come with codectok."""

from __future__ import annotations

import math
import re
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from codectok.errors import InputError
from codectok.parsing import MAX_YAML_CHARACTERS, parse_yaml

from .templates import EXTRA, FIELDS, CodesItem, PatternTemplate, Template, TextItem

TASKS = ("audio", "tts", "asr", "interleaved")
TEXT_TEMPLATE, VOICE_TEMPLATE, PATTERN_TEMPLATE = "text", "tts-voice", "pattern"
# ATAT, or several patterns with shares: ATAT:2,TATA:1
_PATTERNS = re.compile(r"[AT]+(:[0-9.]+)?(,[AT]+(:[0-9.]+)?)*")


def load_template(name: str | Path) -> Template | PatternTemplate:
    """Load a template that comes with codectok, by its name or pattern, or one from a YAML file.

    Args:
        name: name of a template; a pattern such as ATAT, or several with shares, such as `ATAT:2,TATA:1`; or a file.

    Raises:
        InputError: the template does not exist or is not valid.
    """
    if _PATTERNS.fullmatch(str(name)):
        return _pattern_template(str(name))
    own = resources.files(__package__) / "templates" / f"{name}.yaml"
    if own.is_file() and name != PATTERN_TEMPLATE:
        return _parse(own.read_text(encoding="utf-8"), str(name))
    path = Path(name)
    if not path.is_file():
        names = ", ".join((*TASKS, TEXT_TEMPLATE, VOICE_TEMPLATE))
        raise InputError(f"There is no template {name}; give a YAML file, a pattern such as ATAT, or one of {names}.")
    try:
        with path.open(encoding="utf-8") as file:
            return _parse(file.read(MAX_YAML_CHARACTERS + 1), str(path))
    except UnicodeDecodeError:
        raise InputError(f"The template {name} is not UTF-8 text.") from None


def _pattern_template(name: str) -> PatternTemplate:
    shares: dict[str, float] = {}
    for part in name.split(","):
        pattern, _, share = part.partition(":")
        if pattern in shares:
            raise InputError(f"The task {name} has the pattern {pattern} twice; give it one share.")
        try:
            shares[pattern] = float(share or 1)
        except ValueError:
            shares[pattern] = math.nan
        if not 0 < shares[pattern] < math.inf:
            raise InputError(f"The share of {pattern} must be a number above 0, not {share!r}.")
    text = (resources.files(__package__) / "templates" / f"{PATTERN_TEMPLATE}.yaml").read_text(encoding="utf-8")
    template = _parse(text, name, {"patterns": shares})
    assert isinstance(template, PatternTemplate), "it has patterns"
    return template


def _parse(text: str, name: str, others: dict[str, Any] | None = None) -> Template | PatternTemplate:
    """Parse a template, with further values in `others`."""
    found = parse_yaml(text, f"The template {name}")
    by_pattern = isinstance(found, dict) and ("patterns" in found or bool(others))
    if by_pattern:
        found = {**found, **(others or {}), "alone": _template_alone(found.get("alone", "asr"), name)}
    try:
        template = (PatternTemplate if by_pattern else Template).model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        where = where or ("row" if first["type"] == "value_error" else "its top")
        if by_pattern:
            form = (
                "give shares of patterns such as ATAT under patterns, and lists of `text: ...`, `token: ...` or `codes:"
                " row` under audio and text"
            )
        else:
            form = (
                "give lists of `text: ...`, `token: ...`, `codes: row` or `codes: voice` under begin, row, answer and"
                " end"
            )
        raise InputError(f"The template {name} cannot be understood at {where}: {form}.") from None
    _check_items(template, name)
    return template


def _template_alone(alone: object, name: str) -> Template:
    """Load the template of a row that is left alone."""
    if not isinstance(alone, str) or not _PATTERNS.fullmatch(alone):
        template = load_template(alone) if isinstance(alone, str) and alone != name else None
        if isinstance(template, Template) and not template.has_voice:
            return template
    raise InputError(f"The template {name} needs a task or a file with `row`, without a voice, as `alone`.")


def _check_items(template: Template | PatternTemplate, name: str) -> None:
    """Raise `InputError` for unknown fields, and for codes at places where they cannot be."""
    for item in template.items:
        fields = item.fields if isinstance(item, TextItem) else []
        unknown = [field for field in fields if field not in FIELDS and not field.startswith(EXTRA)]
        if unknown:
            known = f"{', '.join(FIELDS)} and {EXTRA}NAME"
            raise InputError(f"The template {name} has a field {{{unknown[0]}}}; choose from {known}.")
    if isinstance(template, PatternTemplate):
        rest = (*template.begin, *template.text, *template.to_text, *template.to_audio, *template.end)
        if template.has_voice or any(isinstance(item, CodesItem) for item in rest):
            raise InputError(f"The template {name} has codes elsewhere than under `audio`; move them there.")
        if CodesItem(codes="row") not in template.audio or not any(isinstance(one, TextItem) for one in template.text):
            raise InputError(f"The template {name} needs `codes: row` under `audio` and `text: ...` under `text`.")
        return
    if CodesItem(codes="row") in (*template.begin, *template.end):
        raise InputError(f"The template {name} has `codes: row` outside `row` and `answer`; move it there.")
    if any(isinstance(item, CodesItem) for item in template.end):
        # Truncation keeps the end whole.
        raise InputError(f"The template {name} has codes under `end`; put them under `begin`, `row` or `answer`.")
