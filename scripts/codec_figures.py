"""Prints the figures of a model card as a table in Markdown, from an evaluation.

codectok evaluate universal/shards-validation evaluation --metrics mel,stoi,estoi,pesq --share 0.2 --no-stability
python scripts/codec_figures.py evaluation
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from codectok.evaluation.summary import ALL, EvaluationSummary
from codectok.pipelines.evaluate.files import SUMMARY_FILE
from codectok.pipelines.evaluate.page import with_interval

CONTROLS = {"opus_6k": "Opus, 6 kb/s", "codec2_1200": "Codec2, 1.2 kb/s"}


def main() -> None:
    """Print one row for each metric and category."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("evaluation", type=Path, help="folder written by codectok evaluate")
    summary = EvaluationSummary.model_validate_json((parser.parse_args().evaluation / SUMMARY_FILE).read_bytes())
    sys.stdout.write("\n".join(rows(summary)) + "\n")


def rows(summary: EvaluationSummary) -> Iterator[str]:
    """Yield the lines of the table, and of the use of codes."""
    systems = {name: name for name in summary.codecs} | CONTROLS
    yield f"| | clips | {' | '.join(systems.values())} |"
    yield f"| --- | ---: {'| ---: ' * len(systems)}|"
    for metric in summary.metrics:
        for category, found in sorted(summary.categories.items(), key=lambda item: item[0] != ALL):
            if metric != "mel" and category != "speech":
                continue
            means = [with_interval(found.systems[system][metric]) for system in systems]
            yield f"| {metric}, {category} | {found.clips:,} | {' | '.join(means)} |"
    for name in summary.codecs:
        (codebook,) = summary.categories[ALL].codes[name].codebooks
        yield f"{name}: {codebook.used_share:.1%} of the codes used, {codebook.entropy:.2f} bits a code"


if __name__ == "__main__":
    main()
