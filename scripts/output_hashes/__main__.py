"""Runs every verb on one small corpus and prints the SHA-256 of every file written.

    python scripts/output_hashes OUT --recordings "$(bash scripts/recordings.sh)" > before.txt

A change that is to leave all outputs alone is proven by two such lists, from before and after it, that are equal. Only
the command line is used (`python -m codectok` in the folder OUT), so that the list does not depend on how the code is
laid out. Lists can be compared if they come from one machine with the same libraries: other processors round otherwise.

The list has the exit code of each command and a line for each file in OUT, its inputs and what commands printed aside.
What cannot be compared byte by byte stands in `RULES`, with the reason; nothing else is passed over.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from corpus import make_inputs
from rules import INPUTS, listed
from runner import Runner, note, set_times
from stages import STAGES, with_needed

ROOT = Path(__file__).resolve().parents[2]


def parsed_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="a folder that is new or empty")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument(
        "--recordings", type=Path, default=cache / "codectok" / "demo-audio", help="what scripts/recordings.sh prints"
    )
    parser.add_argument(
        "--golden", type=Path, default=ROOT / "tests" / "data" / "golden", help="small checkpoints of DistilCodec"
    )
    parser.add_argument("--only", default=",".join(STAGES), help="stages, with commas; what they need runs as well")
    parser.add_argument("--jobs", type=int, default=2, help="commands that run at once")
    arguments = parser.parse_args()
    unknown = set(arguments.only.split(",")) - set(STAGES)
    if unknown:
        parser.error(f"there is no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    if arguments.out.exists() and any(arguments.out.iterdir()):
        parser.error(f"{arguments.out} holds something already")
    return arguments


def main() -> int:
    """Run the stages and print the list; return 1 if a command ended with an unexpected exit code."""
    arguments = parsed_arguments()
    out = arguments.out.resolve()
    make_inputs(out / INPUTS, arguments.recordings, arguments.golden)
    set_times(out)
    with tempfile.TemporaryDirectory() as bytecode:
        runner = Runner(out, arguments.jobs, bytecode)
        for name in with_needed(arguments.only.split(",")):
            runner.run(name, STAGES[name])
    lines, for_people = listed(out)
    exits = [f"exit {code}  codectok {' '.join(command.line.split())}" for command, code in runner.exits]
    texts = ["# Text for people, which may change", *for_people]
    sys.stdout.write("\n".join(["# Commands", *exits, "# Files", *lines, *texts]) + "\n")
    surprises = [command for command, code in runner.exits if code != command.expected]
    for command in surprises:
        note(f"Unexpected exit code: codectok {command.line}")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
