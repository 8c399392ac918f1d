"""Generates the documentation page of all configuration keys from the pydantic models (a hook of MkDocs)."""

from __future__ import annotations

import inspect
import json
import logging
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from codectok.train.config import TrainConfig

PAGE = "reference/configuration.md"
INTRODUCTION = """# Configuration keys

Every key that `codectok train` reads, with its type, default and meaning. Dotted keys are set on the command line as in
`codectok train nano data.batch_size=8`; in YAML and JSON they are nested. An unknown key is an error.

The keys below `codec` are the keys of a codec's `config.json`.
"""
LOG = logging.getLogger("mkdocs.hooks.configuration_reference")
CONSTRAINTS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated page to the site; a key without a description is a warning, which ends a strict build."""
    for key in undescribed():
        LOG.warning("The configuration key %s has no description in its class.", key)
    files.append(File.generated(config, PAGE, content=page()))
    return files


def page() -> str:
    """The page as Markdown."""
    sections = [INTRODUCTION]
    for name, model in _sections("", TrainConfig):
        sections.append(_section(name, model))
    return "\n".join(sections)


def undescribed() -> list[str]:
    """Keys of the configuration that have no description."""
    return [
        f"{prefix}.{name}".lstrip(".")
        for prefix, model in _sections("", TrainConfig)
        for name in model.model_fields
        if name not in _described(model)[1]
    ]


def _sections(prefix: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """A model and all models below it, with the dotted key of each."""
    yield prefix, model
    for name, field in model.model_fields.items():
        for nested in _models(field.annotation):
            yield from _sections(f"{prefix}.{name}".lstrip("."), nested)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _section(prefix: str, model: type[BaseModel]) -> str:
    summary, descriptions = _described(model)
    title = f"`{prefix}`" if prefix else "The run"
    label = f" ({model.model_fields['type'].default})" if "type" in model.model_fields else ""
    lines = [f"## {title}{label}", "", summary, "", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        cells = (f"`{name}`", _type_name(field), _default(field), descriptions.get(name, ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _described(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """The text of a model's docstring before its `Attributes:`, and the description of each field."""
    text = inspect.getdoc(model) or ""
    summary, _, attributes = text.partition("\nAttributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \S)", attributes.rstrip()):
        names, _, description = entry.strip().partition(": ")
        for name in names.split(", "):
            found[name] = " ".join(description.split())
    return summary.strip(), found


def _type_name(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {value}"
        for item in field.metadata
        for name, sign in CONSTRAINTS.items()
        if (value := getattr(item, name, None)) is not None
    ]
    return ", ".join([_spelled(field.annotation), *bounds])


def _spelled(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return "null"
    if origin is Annotated:
        return _spelled(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_spelled(argument) for argument in arguments))
    if origin in (tuple, list):
        return "list of " + " and ".join(dict.fromkeys(_spelled(a) for a in arguments if a is not Ellipsis))
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "section"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false", "Path": "path"}.get(
        getattr(annotation, "__name__", ""), str(annotation)
    )


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
        return "see below"
    return f"`{json.dumps(value, default=str)}`"
