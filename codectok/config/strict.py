"""Sections of a configuration, and how they are read from files."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from codectok.errors import ConfigError
from codectok.parsing import parse_json, parse_yaml

MAX_CONFIG_BYTES = 1 << 25
# Larger integers do not fit into the 64 bits of arrays.
MAX_NUMBER = (1 << 63) - 1
Model = TypeVar("Model", bound=BaseModel)


class StrictModel(BaseModel):
    """An immutable configuration section in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse(model: type[Model], data: Any, origin: str) -> Model:
    """Validate `data` as a `model`.

    Raises:
        ConfigError: a key or value is invalid; the message names all of them and `origin` (a file, a preset).
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{origin} must hold keys and values, but holds {type(data).__name__}.")
    large = _large_number(data)
    if large is not None:
        raise ConfigError(f"{origin}: {large} is a number beyond {MAX_NUMBER:,}; use a smaller one.")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {'; '.join(_describe(model, e) for e in error.errors())}.") from None


def _large_number(data: Any, key: str = "") -> str | None:
    """Return the key of the first integer beyond `MAX_NUMBER`; None if there is none."""
    if isinstance(data, int):
        return key if abs(data) > MAX_NUMBER else None
    named = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list | tuple) else ()
    for name, value in named:
        found = _large_number(value, f"{key}.{name}" if key else str(name))
        if found is not None:
            return found
    return None


def load_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file of keys and values.

    Raises:
        ConfigError: the file is not text, is too large, cannot be parsed, or holds no mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
        text = content.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file; give a YAML or JSON configuration.") from None
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES:,} bytes, so it is not a configuration.")
    data = parse_json(text, str(path)) if path.suffix == ".json" else parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold keys and values, but holds {type(data).__name__}.")
    return data


def _describe(model: type[BaseModel], error: Any) -> str:
    tags = {
        "grvq",
        "simvq",
        "fsq",
        "hifigan",
        "istft",
    }  # pydantic adds the member of the union to the path; it is not in the file
    location = [str(part) for part in error["loc"] if part not in tags]
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        of_section = difflib.get_close_matches(location[-1], _keys_of_section(model, location[:-1]), n=1)
        close = of_section or difflib.get_close_matches(location[-1], _known_keys(model), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return f"unknown key {key!r}{hint}"
    if error["type"] == "union_tag_not_found":
        return f"{key}: the key 'type' is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _keys_of_section(model: type[BaseModel], path: list[str]) -> list[str]:
    models = [model]
    for part in path:
        annotations = [found.model_fields[part].annotation for found in models if part in found.model_fields]
        models = [found for annotation in annotations for found in _models_in(annotation)]
    return sorted({key for found in models for key in found.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]


def _known_keys(model: type[BaseModel]) -> list[str]:
    definitions = [model.model_json_schema(), *model.model_json_schema().get("$defs", {}).values()]
    return sorted({key for definition in definitions for key in definition.get("properties", {})})
