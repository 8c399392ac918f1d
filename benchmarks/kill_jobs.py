"""Kills verbs of codectok at moments picked by changes on the disk, and compares their output with an undisturbed run.

    TMPDIR=/dev/shm python -m benchmarks.kill_jobs --kills 200 --seconds 1800

Each verb runs once undisturbed, which counts the changes of files and the names that appear and go. Then the same
command is started and killed (its process, a worker, or the group) at a random one of these moments, again and again,
until it ends; then every file must have the bytes of the undisturbed run, and no other file may be left. The exit
status is 1 if one run differs, fails, or prints a traceback. Run it in the folder of the repository.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.helpers.forks import import_everything
from tests.helpers.killing import (
    Finished,
    Kills,
    Moment,
    Target,
    adopt_orphans,
    end_processes,
    pick_moment,
    run_and_kill,
)

KILLED, INTERRUPTED = -9, 130
# A Ray of several processes takes seconds to start, so that it gets a smaller share of the kills.
RAY_SHARE = 0.15
# A verb that was killed this often finishes undisturbed.
KILLS_OF_A_RUN = 12
OUTPUT = "out"
# Files about runs name processes and times. Events of TensorBoard hold the time; `metrics_of` compares their values.
NOT_COMPARED = ("locks", "runs", "tensorboard", "training.sha256")
TIMED_METRICS = {"steps_per_second", "audio_seconds_per_second"}


@dataclass(frozen=True)
class Verb:
    """A command: its arguments, where "OUT" stands for the output, and the engines that it runs on."""

    name: str
    arguments: tuple[str, ...]
    engines: tuple[str, ...] = ("",)
    output: str = OUTPUT


@dataclass
class Row:
    """Result of one verb on one engine."""

    verb: str
    engine: str
    kills: Kills = field(default_factory=Kills)
    runs: int = 0
    faults: list[str] = field(default_factory=list)


def verbs_of(inputs: Path) -> list[Verb]:
    """All verbs, over small inputs in the folder `inputs`."""
    from tests.train.conftest import TINY

    both = ("local", "ray")
    corpus, table, codec, model = (str(inputs / name) for name in ("speech", "tokens", "codec", "model"))
    shard = ("shard", corpus, "OUT", "--shard-seconds", "15", "--max-rejects", "1")
    encoder = ("--codec", codec, "--device", "cpu")
    quick = ("--metrics", "si_sdr,stft", "--controls", "original,noise", "--unit-seconds", "15", "--max-rejects", "1")
    evaluate = ("evaluate", corpus, "OUT", *encoder, *quick)
    documents = ("--task", "tts", "--tokenizer", model, "--offset", "400", "--part-megabytes", "0.004")
    talks = str(inputs / "talks.jsonl")
    instruct = ("--tokenizer", str(inputs / "instruct"), "--offset", "400", "--part-megabytes", "0.004")
    filled, megatron = ("--packing", "next-fit", "--length", "400"), ("--format", "megatron")
    sizes = ("--file-megabytes", "0.01", "--group-megabytes", "0.001")
    packed = ("--packing", "next-fit", "--length", "64")
    imported = ("--codec", codec, "--part-megabytes", "0.004", "--max-rejects", "1")
    train = ("train", "nano", "codec={}", *TINY, f"data.shards={inputs / 'shards'}", "output=OUT", "steps=7")
    return [
        Verb("shard", shard, both),
        Verb("shard --deduplicate", (*shard, "--deduplicate"), both),
        Verb("tokenize", ("tokenize", corpus, "OUT", *encoder, "--part-seconds", "15", "--max-rejects", "1"), both),
        Verb("export compact", ("export", "compact", table, "OUT", *sizes), both),
        Verb("export sequences", ("export", "sequences", table, "OUT", *documents, *packed), both),
        Verb("export megatron", ("export", "megatron", table, "OUT", *documents), both),
        Verb("export unitts", ("export", "unitts", table, "OUT", "--offset", "400", "--part-megabytes", "0.004"), both),
        Verb("export chat", ("export", "chat", talks, "OUT", "--tokens", table, *instruct, *filled), both),
        Verb("export chat, Megatron", ("export", "chat", talks, "OUT", "--tokens", table, *instruct, *megatron), both),
        Verb("export codes", ("export", "codes", table, "OUT", "--part-megabytes", "0.004"), both),
        Verb("import codes", ("import", "codes", str(inputs / "codes"), "OUT", *imported), both),
        Verb("export vocabulary", ("export", "vocabulary", codec, "OUT", "--offset", "400")),
        Verb("export tokenizer", ("export", "tokenizer", model, "OUT", "--codec", codec)),
        Verb("export language-model", ("export", "language-model", model, "OUT", "--codec", codec)),
        Verb("export huggingface", ("export", "huggingface", "OUT", "--overwrite")),
        Verb("evaluate", evaluate, both),
        Verb("train", train, both),
        Verb("train, workers", (*train, "--engine", "local", "data.num_workers=1", "checkpoint_interval=2")),
    ]


def write_inputs(inputs: Path) -> None:
    """Write a corpus, a codec, a token table, a language model with its tokenizer, and shards to `inputs`."""
    import numpy as np
    import soundfile

    from codectok import Codec
    from tests.helpers.audio import tone
    from tests.helpers.chat import save_chat_tokenizer
    from tests.helpers.exports import write_parts
    from tests.helpers.jobs import run, shard_job
    from tests.helpers.language_models import qwen2, write_model

    speech = inputs / "speech"
    (speech / "sub folder").mkdir(parents=True)
    for number, (name, seconds, rate) in enumerate(
        [("a.wav", 3.0, 24_000), ("b.flac", 12.5, 16_000), ("sub folder/c ü.ogg", 25.0, 22_050), ("d.mp3", 5.0, 44_100)]
    ):
        soundfile.write(speech / name, tone(seconds, rate, 200 + 50 * number, seed=number), rate)
    shutil.copy(speech / "a.wav", speech / "same as a.wav")
    soundfile.write(speech / "nan.wav", np.full(40_000, np.nan, np.float32), 24_000, subtype="FLOAT")
    (speech / "text.wav").write_text("this is text")
    Codec.from_config("nano", seed=1).save_pretrained(inputs / "codec")
    write_parts(inputs / "tokens", 30)
    write_codes(inputs / "codes")
    write_model(inputs / "model", qwen2())
    save_chat_tokenizer(inputs / "instruct", "chatml")
    talks = [
        {"messages": [spoken("user", f"c{n:03d}"), spoken("assistant", f"c{n * 7 % 83:03d}")], "id": f"t{n}"}
        for n in range(60)
    ]
    (inputs / "talks.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    run(shard_job(), speech, inputs / "shards")


def spoken(role: str, name: str) -> dict[str, Any]:
    """A message of one clip."""
    return {"role": role, "content": [{"type": "audio", "id": name}]}


def write_codes(folder: Path) -> None:
    """Write JSON lines of codes for the codec; one has no code, and one comes twice."""
    import numpy as np

    from codectok import Codec

    config = Codec.from_config("nano").describe()
    generator = np.random.default_rng(0)
    folder.mkdir()
    for file in range(3):
        lines = []
        for number in range(20):
            codes = generator.integers(config.codebook_size, size=(30 if number else 0, config.n_codebooks))
            lines.append({"key": f"{file if number > 1 else 0}-{number}", "codes": codes.tolist(), "text": "a text"})
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def main_of(arguments: Sequence[str]) -> Callable[[], object]:
    """A function that runs the command line with `arguments`."""

    def main() -> None:
        from codectok.cli.main import main as run_codectok

        sys.argv = ["codectok", *arguments]
        run_codectok()

    return main


class VerbKiller:
    """Runs and kills one verb on one engine, in the folder `work`."""

    def __init__(self, verb: Verb, engine: str, inputs: Path, work: Path, pick: random.Random) -> None:
        self._verb, self._inputs, self._work, self._pick = verb, inputs, work, pick
        self._output = work / OUTPUT
        options = ["--engine", engine, *(["--workers", "2"] if engine == "ray" else [])] if engine else []
        arguments = [word.replace("OUT", str(self._output)) for word in verb.arguments]
        self._main = main_of([*arguments, *options])
        several = engine == "ray" or "workers" in verb.name
        self._targets: tuple[Target, ...] = ("driver", "worker", "group") if several else ("driver", "group")
        self.row = Row(verb.name, engine)

    def kill_often(self, kills: int, deadline: float) -> Row:
        """Make `kills` kills, as many as time allows."""
        self._clear()
        clean = self._run(None)
        expected = contents(self._work)
        if clean.status:
            self.row.faults.append(f"undisturbed: exit {clean.status}: {last_line(clean.log)}")
            return self.row
        while self.row.kills.total < kills and time.monotonic() < deadline and not self.row.faults:
            self._clear()
            self._run_until_done(clean, kills, expected)
        return self.row

    def _run_until_done(self, clean: Finished, kills: int, expected: dict[str, str]) -> None:
        history: list[str] = []
        while True:
            may_kill = self.row.kills.total < kills and len(history) < KILLS_OF_A_RUN
            moment = pick_moment(self._pick, clean.changes, clean.names, self._targets) if may_kill else None
            done = self._run(moment)
            if done.killed_at is not None and moment is not None:
                self.row.kills.moments[done.killed_at] += 1
                self.row.kills.targets[moment.target] += 1
                history.append(f"{done.killed_at} ({moment.target}, {moment.kind} {moment.number})")
            if "Traceback" in done.log:
                self._fault(history, f"a traceback: {last_line(done.log)}")
                return
            if done.status == 0:
                break
            if done.killed_at is None:
                # Verbs that make one file or folder refuse one that is there: the killed process had finished it.
                if history and self._verb.engines == ("",) and contents(self._work) == expected:
                    break
                self._fault(history, f"exit {done.status}: {last_line(done.log)}")
                return
        self.row.runs += 1
        found = contents(self._work)
        if found != expected:
            different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            self._fault(history, f"different: {', '.join(different[:5])}")

    def _fault(self, history: list[str], fault: str) -> None:
        self.row.faults.append(f"after {'; '.join(history) or 'no kill'}: {fault}")

    def _run(self, moment: Moment | None) -> Finished:
        done = run_and_kill(self._main, self._output, self._work.parent / "log", moment)
        end_processes(done.survivors)
        return done

    def _clear(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        if self._verb.name == "export huggingface":
            shutil.copytree(self._inputs / "tokens", self._output)


def contents(folder: Path) -> dict[str, str]:
    """Hash of each file by name, an empty text for each folder, and the metrics of a training run."""
    from tests.helpers.jobs import content_of

    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name == "training.pt":
            found[name] = hash_of_state(path)
        elif not set(NOT_COMPARED) & set(path.relative_to(folder).parts):
            found[name] = hashlib.sha256(content_of(path)).hexdigest() if path.is_file() else ""
        elif path.name == "tensorboard":
            found[name] = json.dumps(sorted(metrics_of(path).items()))
    return found


def hash_of_state(path: Path) -> str:
    """Hash of the values of a training state; pickle stores equal values in several ways."""
    import torch

    digest = hashlib.sha256()

    def add(value: object, name: str) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode() + value.numpy().tobytes())
        elif isinstance(value, dict):
            for key in value:
                add(value[key], f"{name}.{key}")
        elif isinstance(value, list | tuple):
            for number, part in enumerate(value):
                add(part, f"{name}[{number}]")
        else:
            digest.update(f"{name} {value!r}".encode())

    add(torch.load(path, weights_only=True), "")
    return digest.hexdigest()


def metrics_of(folder: Path) -> dict[str, float]:
    """The last value of each metric and step in the events of TensorBoard."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = {}
    for file in sorted(folder.iterdir()):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag not in TIMED_METRICS and value.tensor.float_val:
                    found[f"{value.tag} {event.step:08d}"] = float(value.tensor.float_val[0])
    return found


def last_line(text: str) -> str:
    """The last line of a log that is not empty."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def show(rows: Sequence[Row]) -> None:
    """Print the table of results, and the faults below it."""
    table = Table(title=f"{sum(row.kills.total for row in rows)} kills", title_justify="left")
    for name in ("verb", "engine", "kills", "of", "moments", "runs", "equal"):
        table.add_column(name, overflow="fold")
    for row in rows:
        moments = ", ".join(f"{count} {name}" for name, count in row.kills.moments.most_common())
        targets = ", ".join(f"{count} {name}" for name, count in row.kills.targets.most_common())
        equal = "no" if row.faults else "yes" if row.runs else "not run"
        table.add_row(row.verb, row.engine, str(row.kills.total), targets, moments, str(row.runs), equal)
    console = Console(width=150)
    console.print(table)
    for row in rows:
        for fault in row.faults:
            console.print(f"{row.verb} {row.engine}: {fault}", markup=False, soft_wrap=True)


def shares(verbs: Sequence[Verb], engines: set[str], kills: int) -> list[tuple[Verb, str, int]]:
    """Divide `kills` among verbs and engines, at least one for each; Ray has a smaller share."""
    jobs = [(verb, engine) for verb in verbs for engine in verb.engines if engine in engines | {""}]
    on_ray = [job for job in jobs if job[1] == "ray"]
    for_ray = max(len(on_ray), round(RAY_SHARE * kills)) if on_ray else 0
    others = max(len(jobs) - len(on_ray), kills - for_ray)
    found = []
    for group, total in ((on_ray, for_ray), ([job for job in jobs if job not in on_ray], others)):
        for place, (verb, engine) in enumerate(group):
            found.append((verb, engine, total // len(group) + (place < total % len(group))))
    return [entry for job in jobs for entry in found if (entry[0], entry[1]) == job]


def main() -> int:
    """Run the command line; 1 if a run differs from an undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="kills in all")
    parser.add_argument("--seconds", type=float, default=3600.0, help="time after which no other verb is started")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", help="comma-separated beginnings of names; all by default")
    parser.add_argument("--engines", default="local,ray", help="comma-separated: local, ray")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="ct-") as folder:
        root = Path(folder)
        os.environ |= {"TMPDIR": str(root), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        tempfile.tempdir = None
        import_everything()
        inputs = root / "inputs"
        made = run_and_kill(lambda: write_inputs(inputs), inputs, root / "log", None)
        if made.status:
            sys.exit(f"The inputs could not be made:\n{made.log}")
        wanted = tuple((options.verbs or "").split(","))
        verbs = [verb for verb in verbs_of(inputs) if verb.name.startswith(wanted)]
        rows, deadline = [], time.monotonic() + options.seconds
        for verb, engine, kills in shares(verbs, set(options.engines.split(",")), options.kills):
            if time.monotonic() < deadline:
                pick = random.Random(f"{options.seed} {verb.name} {engine}")
                rows.append(VerbKiller(verb, engine, inputs, root / "work", pick).kill_often(kills, deadline))
                print(f"{verb.name} {engine}: {rows[-1].kills.total} kills", flush=True)
    show(rows)
    if options.json:
        found = [
            {"verb": row.verb, "engine": row.engine, "kills": row.kills.total, "runs": row.runs, "faults": row.faults}
            for row in rows
        ]
        options.json.write_text(json.dumps(found, indent=1))
    return int(any(row.faults for row in rows))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
