"""The page of a training run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from codectok.config import CodecConfig
from codectok.evaluation.pages.line_charts import shown
from codectok.evaluation.pages.report import HtmlReport
from codectok.train.run.output import BEST_FOLDER, CODEC_FOLDER
from codectok.train.run.validation import ERROR

from .charts import VALUE_HEADER, charts_by_section, value_rows
from .clips import clip_comparisons
from .run_folder import RunFolder, read_run

Fact = tuple[str, str]


def run_page(run: str | Path) -> str:
    """Return the report of a training run as HTML; it depends on the files of the run alone.

    Raises:
        InputError: `run` is not the folder of a run, or tensorboard is not installed.
    """
    found = read_run(run)
    report = HtmlReport(f"codectok train: {found.path.resolve().name}")
    report.table("Run", ("", ""), list(_run_facts(found)))
    if found.config is not None:
        report.table("Codec", ("", ""), list(_codec_facts(found.config.codec)))
    for section, charts in charts_by_section(found.events.scalars):
        report.line_charts(section, charts)
    report.comparisons("Validation clips", clip_comparisons(found.events))
    rows = value_rows(found.events.scalars)
    if rows:
        report.table("Values", VALUE_HEADER, rows)
    report.heading("Configuration")
    report.folded_text("config.yaml", found.config_text)
    return report.render()


def _run_facts(run: RunFolder) -> Iterator[Fact]:
    events = run.events
    if events.last_step is None:
        yield "progress", "nothing has been logged yet"
    else:
        wanted = None if run.config is None else run.config.steps
        share = "" if wanted is None else f" of {wanted:,} ({min(1.0, events.last_step / wanted):.1%})"
        yield "progress", f"step {events.last_step:,}{share}"
    if events.last_time is not None:
        last = datetime.fromtimestamp(events.last_time, UTC)
        yield "last entry", f"{last:%Y-%m-%d %H:%M:%S} UTC"
    errors = [(value, step) for step, value in events.scalars.get(ERROR, ()) if math.isfinite(value)]
    if errors:
        least, step = min(errors)
        yield "least validation error", f"{shown(least)} (mel) at step {step:,.0f}"
    steps = ", ".join(f"{step:,}" for step in run.checkpoints)
    yield "checkpoints", f"{len(run.checkpoints):,} kept, of the steps {steps}" if steps else "none"
    yield "final codec", CODEC_FOLDER if run.has_codec else "not written yet"
    if run.has_best:
        yield "best codec", BEST_FOLDER
    if run.config_error is not None:
        yield "configuration", f"this version cannot read it: {run.config_error}"
    for path in events.damaged:
        yield "damaged", f"{path.name} is read up to an event that cannot be read"


def _codec_facts(config: CodecConfig) -> Iterator[Fact]:
    import torch

    from codectok.model.network import CodecNetwork

    quantizer = config.quantizer
    bits = config.frame_rate * quantizer.n_codebooks * math.log2(quantizer.codebook_size)
    with torch.device("meta"):
        network = CodecNetwork(config)
    parts = {"encoder": network.encoder, "quantizer": network.quantizer, "decoder": network.decoder}
    sizes = {name: sum(tensor.numel() for tensor in part.state_dict().values()) for name, part in parts.items()}
    yield "name", config.name
    yield "sample rate", f"{config.mel.sample_rate:,} Hz"
    yield "frame", f"{config.frame_size:,} samples, {config.frame_rate:g} per second"
    yield "codebooks", f"{quantizer.n_codebooks} of {quantizer.codebook_size:,} codes ({quantizer.type})"
    yield "tokens", f"{config.frame_rate * quantizer.n_codebooks:g} per second, {bits:,.1f} bit/s"
    yield "tensors", ", ".join(f"{name} {size:,}" for name, size in sizes.items())
