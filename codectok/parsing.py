"""Parsing of JSON and YAML that may be hostile: nested deeply, with huge numbers, or repeated by aliases."""

from __future__ import annotations

import json
from typing import Any

import yaml

from .errors import ConfigError, shortened

# Parsing takes about 10 s.
MAX_YAML_CHARACTERS = 1 << 20
MAX_DEPTH = 64
MAX_VALUES = 1_000_000


def parse_json(text: str, where: str) -> Any:
    """Parse JSON that may be hostile; raise `ConfigError`, which names `where`, if it cannot be used."""
    try:
        data = json.loads(text)
    except RecursionError:
        raise ConfigError(f"{where} cannot be parsed: it is nested too deeply.") from None
    except ValueError as error:  # not JSON, or a number of thousands of digits
        raise ConfigError(f"{where} cannot be parsed: {shortened(error)}.") from None
    _check_nesting(data, where)
    return data


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML that may be hostile; raise `ConfigError`, which names `where`, if it cannot be used.

    Its aliases may repeat values, but not more than `MAX_VALUES` in all, and not within themselves.
    """
    if len(text) > MAX_YAML_CHARACTERS:
        raise ConfigError(f"{where} has more than {MAX_YAML_CHARACTERS:,} characters, so it is not a configuration.")
    try:
        data = yaml.safe_load(text)
    except RecursionError:
        raise ConfigError(f"{where} cannot be parsed: it is nested too deeply.") from None
    except Exception as error:  # constructors of values raise errors of every kind, such as KeyError for `!!bool x`
        reason = " ".join(str(error).split()) if isinstance(error, yaml.YAMLError) else shortened(error)
        raise ConfigError(f"{where} cannot be parsed: it is not valid YAML: {reason}.") from None
    _check_nesting(data, where)
    return data


def _check_nesting(data: Any, where: str) -> None:
    """Raise `ConfigError` if values are nested too deeply, or too many with every repetition by an alias."""
    count, level, depth = 0, [data], 0
    while level:
        depth += 1
        inner = [value for value in level if isinstance(value, dict | list)]
        count += len(level)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{where} is nested more than {MAX_DEPTH} levels deep, so it is not a configuration.")
        size = sum(map(len, inner))
        if count + size > MAX_VALUES:
            raise ConfigError(f"{where} has more than {MAX_VALUES:,} values, so it is not a configuration.")
        level = [one for value in inner for one in (value.values() if isinstance(value, dict) else value)]
