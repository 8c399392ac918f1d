"""Layouts that come with codectok, and layouts from files."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from codectok.errors import InputError
from codectok.parsing import MAX_YAML_CHARACTERS, parse_yaml

from .layout import TokenLayout, describe_error

DEFAULT_LAYOUT = "unitts"
PRESETS = ("unitts", "llasa", "neutts", "spark", "apertus", "orpheus", "soda")


def load_layout(name: str | Path) -> TokenLayout:
    """Load a layout that comes with codectok, by its name, or one from a YAML or JSON file.

    Raises:
        InputError: the layout does not exist or is not valid.
    """
    if str(name) in PRESETS:
        return preset_layout(str(name))
    path = Path(name)
    if not path.is_file():
        raise InputError(f"There is no layout {name}; give a YAML or JSON file, or one of {', '.join(PRESETS)}.")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_YAML_CHARACTERS + 1)
    except UnicodeDecodeError:
        raise InputError(f"The layout {name} is not UTF-8 text.") from None
    layout = _parse(text, str(path))
    if layout.name in PRESETS and layout != preset_layout(layout.name):
        raise InputError(f"The layout {name} has the name of another one, {layout.name}; give it another name.")
    return layout


@cache
def preset_layout(name: str) -> TokenLayout:
    """Return the layout of this name that comes with codectok."""
    path = resources.files(__package__) / "presets" / f"{name}.yaml"
    return _parse(path.read_text(encoding="utf-8"), name)


def default_layout() -> TokenLayout:
    """Return UniTTS's layout."""
    return preset_layout(DEFAULT_LAYOUT)


def preset_of_token(token: str) -> str | None:
    """Return the name of the preset that writes a code as `token`; None if none does."""
    return next((name for name in PRESETS if preset_layout(name).is_code_token(token)), None)


def _parse(text: str, name: str) -> TokenLayout:
    data = parse_yaml(text, f"The layout {name}")
    if not isinstance(data, dict):
        raise InputError(f"The layout {name} is not a mapping; give name, kind and token.")
    try:
        return TokenLayout.model_validate(data)
    except ValidationError as error:
        raise InputError(f"The layout {name} cannot be used: {describe_error(error)}.") from None
