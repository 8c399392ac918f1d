"""Fuzzes all files that codectok reads: sources, and its own files when they are damaged.

Each mutation is read by verbs of the command line in a forked process. A traceback, a process that hangs for 30 s,
takes 2 GB or dies, a unit that fails, and rows of good neighbours that change are findings. For codecs, checkpoints and
other files a refusal in one sentence is right.

    python benchmarks/fuzz_hostile.py --mutations 1000 --seconds 600 --kinds tars,parquet,manifests
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hostile.children import Outcome, quiet, run_all
from hostile.files import KINDS as FILE_KINDS
from hostile.files import tiny_codec
from hostile.samples import Manifests, ParquetFiles, Tars
from rich.console import Console
from rich.table import Table

# With fewer mutations, commands are not tried with sound inputs first.
FEWEST_TRIED = 20
GOOD = ("kept", "refused")
KINDS = {kind.name: kind for kind in (Tars(), ParquetFiles(), Manifests(), *FILE_KINDS)}
VERDICTS = (*GOOD, "traceback", "hang", "memory", "died", "unit failed", "neighbour", "message")


def fuzz(name: str, base: Path, codec: Path, chosen: argparse.Namespace) -> list[Outcome]:
    """Prepare the sound inputs of a kind, and run its mutations."""
    kind = KINDS[name]
    folder = base / name

    def check(place: Path, number: int) -> tuple[str, str]:
        return kind.check(folder, codec, random.Random(f"{chosen.seed}/{name}/{number}"), place)

    numbers: Iterator[int] = iter(range(chosen.first, chosen.first + chosen.mutations))
    if chosen.only is not None:
        numbers = iter([chosen.only])
    # In this process, so that children find all modules imported that the verbs need.
    with quiet():
        kind.prepare(folder, codec, tried=chosen.mutations >= FEWEST_TRIED)
    deadline = time.monotonic() + chosen.seconds
    return list(run_all(check, numbers, base / f"{name}-cases", chosen.processes, deadline))


def signature_of(outcome: Outcome) -> str:
    """Findings with the same signature are shown once: their verdict, and their remark without numbers and paths."""
    return outcome.verdict + re.sub(r"/\S+|[0-9]+", "", outcome.remark.rpartition(" | ")[2])[:120]


def load_libraries() -> None:
    """Import the libraries of all verbs once, before children are forked, with one thread each."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TERM": "dumb", "COLUMNS": "200"})
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    import torch

    torch.set_num_threads(1)
    import codectok.cli.main
    import codectok.codec
    import codectok.pipelines.tokenize.job
    import codectok.train  # noqa: F401


def main() -> None:
    """Fuzz the chosen kinds, print findings and a table, and fail if there is a finding."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--kinds", default=",".join(KINDS), help="comma-separated names")
    options.add_argument("--mutations", type=int, default=200, help="damaged inputs of each kind")
    options.add_argument("--seconds", type=float, default=600, help="time for each kind; no mutation starts later")
    options.add_argument("--first", type=int, default=0, help="number of the first mutation")
    options.add_argument("--only", type=int, help="number of one mutation, to repeat a finding")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options.add_argument("--shown", type=int, default=30, help="different findings to print for each kind")
    chosen = options.parse_args()
    names = chosen.kinds.split(",")
    unknown = sorted(set(names) - set(KINDS))
    if unknown:
        options.error(f"there is no kind {unknown[0]}; choose from {', '.join(KINDS)}")
    load_libraries()
    console = Console(width=200 if not sys.stdout.isatty() else None)
    table = Table("kind", "runs", *VERDICTS, "slowest", "peak", title=f"damaged inputs, seed {chosen.seed}")
    failed = False
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        codec = Path(temporary) / "codec"
        with quiet():
            tiny_codec(codec)
        for name in names:
            outcomes = fuzz(name, Path(temporary), codec, chosen)
            counts = Counter(outcome.verdict for outcome in outcomes)
            findings = {signature_of(o): o for o in reversed(outcomes) if o.verdict not in GOOD}
            for finding in list(findings.values())[: chosen.shown]:
                text = f"{name} #{finding.number} {finding.verdict}: {finding.case}: {finding.remark}"
                console.print(re.sub(r"[^ -~]", "?", text), markup=False, highlight=False)
            table.add_row(
                name,
                str(len(outcomes)),
                *(str(counts[verdict]) for verdict in VERDICTS),
                f"{max((o.seconds for o in outcomes), default=0):.1f} s",
                f"{max((o.peak_bytes for o in outcomes), default=0) >> 20} MB",
            )
            failed = failed or bool(findings)
    console.print(table)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
