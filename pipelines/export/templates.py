"""Templates of an export's datasets, as its options choose them."""

from __future__ import annotations

from codectok.errors import InputError
from codectok.exports.choices import Loss
from codectok.exports.sequences.template_files import load_template
from codectok.exports.sequences.templates import END_OF_SEQUENCE, CodesItem, PatternTemplate, Template

from .options import DocumentOptions
from .sources import ExportSources

Templates = dict[str, Template | PatternTemplate]
"""Templates by dataset."""


def load_templates(settings: DocumentOptions, sources: ExportSources) -> Templates:
    """Load the template of each dataset.

    Raises:
        InputError: there is no such template, an option does not go with it, or a text has one with codes.
    """
    templates = {name: load_template(settings.template_of(name)) for name in sources.tables}
    by_pattern = {name: one for name, one in templates.items() if isinstance(one, PatternTemplate)}
    unused = {"--switch-token": settings.switch, "--seed": settings.seed}
    for option, value in {} if by_pattern else unused.items():
        if value is not None:
            raise InputError(f"{option} is for patterns such as --task ATAT; leave it out.")
    if settings.switch is not None:
        own = next((name for name, one in by_pattern.items() if one.to_text or one.to_audio), None)
        if own is not None or settings.switch == END_OF_SEQUENCE:
            reason = f"the template of {own} says it (`to_text`, `to_audio`)" if own else "eos ends documents"
            raise InputError(f"--switch-token cannot be {settings.switch} here: {reason}; leave it out.")
        templates |= {name: template.with_switch(settings.switch) for name, template in by_pattern.items()}
    for name in sources.texts:
        templates[name] = load_template(settings.task_of_text(name))
        if any(isinstance(item, CodesItem) for item in templates[name].items):
            raise InputError(f"The template of {name} has codes, but {name} is text; give one with text and tokens.")
    return templates


def describe_template(template: Template | PatternTemplate, loss: Loss | None) -> str:
    """Everything of a template that decides the output: without a loss an answer is a part of the row."""
    if isinstance(template, PatternTemplate):
        total = sum(template.patterns.values())
        shares = {pattern: share / total for pattern, share in sorted(template.patterns.items())}
        return template.model_copy(update={"patterns": shares}).model_dump_json()
    if loss is None:
        return template.without_answer.model_dump_json(exclude={"answer"})
    return template.model_dump_json()
