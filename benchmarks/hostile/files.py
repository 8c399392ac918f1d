"""Kinds of files that codectok or other programs have written: a damaged one is refused in one sentence, or read."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from abc import ABC, abstractmethod
from pathlib import Path

import yaml

from .children import CASE, codectok
from .mutations import VALUES, damage_bytes, damage_file
from .samples import wave

CODEC = {
    "name": "tiny",
    "mel": {"n_mels": 40},
    "encoder": {"depths": [1, 1], "dims": [16, 32], "drop_path_rate": 0.0},
    "quantizer": {"type": "grvq", "codebook_size": 64, "codebook_dim": 8, "n_residuals": 2, "n_groups": 1},
    "decoder": {
        "initial_channels": 8, "upsample_rates": [16, 16], "upsample_kernel_sizes": [16, 16],
        "resblock_kernel_sizes": [3], "resblock_dilations": [[1]],
    },
}  # fmt: skip
LOCAL = ("--engine", "local", "--max-rejects", "1", "--no-space-check")
Command = tuple[object, ...]


def tiny_codec(folder: Path) -> Path:
    """Write a small codec with random weights."""
    from codectok.codec import Codec
    from codectok.config import CodecConfig

    Codec.from_config(CodecConfig.model_validate(CODEC), seed=1, device="cpu").save_pretrained(folder)
    return folder


def sounds(folder: Path, count: int = 4, seconds: float = 0.5) -> Path:
    """Write a folder of small WAV files."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"clip-{number}.wav").write_bytes(wave(number, seconds))
    return folder


def must(*arguments: object) -> None:
    """Run a verb on sound inputs."""
    code = codectok(*arguments)
    assert code == 0, f"{arguments} ended with {code}"


class FileKind(ABC):
    """A kind of files.

    Attributes:
        name: of the kind.
    """

    name: str

    @abstractmethod
    def build(self, base: Path, codec: Path) -> None:
        """Write sound files to the new folder `base / "sound"`."""

    def prepare(self, base: Path, codec: Path, tried: bool) -> None:
        """Write sound files, and run all commands once if `tried`, which imports all modules that they need."""
        self.build(base, codec)
        for path in self.damaged_files(base / "sound") if tried else []:
            copied = Path(shutil.copytree(base / "sound", base / "tried" / "sound"))
            for command in self.commands(copied, copied / path.relative_to(base / "sound"), base, codec):
                must(*command)
            shutil.rmtree(base / "tried")

    def damaged_files(self, sound: Path) -> list[Path]:
        """Files whose commands are tried: one of each set of commands."""
        return self.targets(sound)[:1]

    def targets(self, place: Path) -> list[Path]:
        """Files to damage."""
        return [path for path in sorted(place.rglob("*")) if path.is_file()]

    def damage(self, rng: random.Random, place: Path) -> tuple[Path, str]:
        """Damage one of the files; return it, and a description."""
        paths = self.targets(place)
        path = rng.choice(paths)
        return path, damage_file(rng, path, paths)

    @abstractmethod
    def commands(self, place: Path, path: Path, base: Path, codec: Path) -> list[Command]:
        """Commands that read the file `path` in `place`, of which some are run."""

    def chosen(self, rng: random.Random, commands: list[Command]) -> list[Command]:
        """Choose the commands to run."""
        return rng.sample(commands, min(2, len(commands)))

    def check(self, base: Path, codec: Path, rng: random.Random, place: Path) -> tuple[str, str]:
        """Damage a copy of the files, and read it."""
        copied = Path(shutil.copytree(base / "sound", place / "sound"))
        path, case = self.damage(rng, copied)
        commands = self.chosen(rng, self.commands(copied, path, base, codec))
        (place / CASE).write_text(case, errors="replace")
        verdict = "kept"
        for command in commands:
            code = codectok(*command)
            if code not in (0, 1, 2):
                return "died", f"exit code {code}"
            if code:
                verdict = "refused"
                errors = (place / "output").read_text(errors="replace").splitlines()
                last = max(number for number, line in enumerate(errors) if line.startswith("$ codectok"))
                said = [line for line in errors[last:] if line.startswith("Error:")]
                if len(said) != 1:
                    return "message", f"{len(said)} lines of errors: {errors[last:][-3:]}"
        return verdict, ""


class Codecs(FileKind):
    """Codec folders."""

    name = "codecs"

    def build(self, base: Path, codec: Path) -> None:
        """Copy a codec, and write clips and a table of it."""
        shutil.copytree(codec, base / "sound" / "codec")
        sounds(base / "speech")
        must("tokenize", base / "speech", base / "table", "--codec", codec, "--device", "cpu", *LOCAL)

    def commands(self, place: Path, path: Path, base: Path, codec: Path) -> list[Command]:
        """All verbs that load a codec."""
        quick = ("--metrics", "si_sdr", "--controls", "none")
        own, speech, table = place / "codec", base / "speech", base / "table"
        with_codec = ("--codec", own, "--device", "cpu")
        return [
            ("inspect", own),
            ("encode", speech, place / "codes.npz", *with_codec),
            ("tokenize", speech, place / "out", *with_codec, *LOCAL),
            ("decode", table, place / "wav", *with_codec),
            ("evaluate", speech, place / "evaluation", *with_codec, *LOCAL, *quick),
            ("reconstruct", speech / "clip-0.wav", place / "again.wav", *with_codec),
            ("verify", table, *with_codec, "--reencode", 2),
            ("export", "vocabulary", own, place / "vocabulary"),
        ]


class Distilcodec(FileKind):
    """Checkpoints of DistilCodec."""

    name = "distilcodec"

    def build(self, base: Path, codec: Path) -> None:
        """Take the smallest checkpoint of the tests."""
        source = Path(__file__).parents[2] / "tests/data/golden/student"
        folder = base / "sound" / "checkpoint"
        folder.mkdir(parents=True)
        for name in ("g_00000042", "model_config.json"):
            shutil.copy(source / name, folder)

    def commands(self, place: Path, path: Path, base: Path, codec: Path) -> list[Command]:
        """Import it."""
        return [("import-distilcodec", place / "checkpoint", place / "codec")]


class Tables(FileKind):
    """Token tables and files of codes that are read without their job."""

    name = "tables"

    def build(self, base: Path, codec: Path) -> None:
        """Write a table of two parts and an npz."""
        sounds(base / "speech")
        with_codec = ("--codec", codec, "--device", "cpu")
        must("tokenize", base / "speech", base / "out", *with_codec, *LOCAL, "--part-seconds", 1)
        (base / "sound" / "table").mkdir(parents=True)
        for part in (base / "out").glob("*.parquet"):
            shutil.copy(part, base / "sound" / "table")
        must("encode", base / "speech", base / "sound" / "codes.npz", *with_codec)

    def damaged_files(self, sound: Path) -> list[Path]:
        """A part and the npz."""
        return [sound / "codes.npz", *self.targets(sound / "table")[:1]]

    def commands(self, place: Path, path: Path, base: Path, codec: Path) -> list[Command]:
        """All verbs that read tables."""
        table, codes, out = place / "table", place / "codes.npz", place / "out"
        with_codec = ("--codec", codec, "--device", "cpu")
        if path == codes:
            return [("inspect", codes), ("decode", codes, out, *with_codec)]
        return [
            ("inspect", table), ("verify", table), ("decode", table, out / "wav", *with_codec),
            ("decode", table, out / "some", *with_codec, "--where", "duration > 0.1"),
            ("verify", table, *with_codec, "--decode", 2, "--to", out / "listen"),
            ("export", "sequences", table, out / "sequences", *LOCAL),
            ("export", "megatron", table, out / "megatron", *LOCAL),
            ("export", "unitts", table, out / "unitts", "--task", "audio", *LOCAL),
            ("export", "compact", table, out / "compact", *LOCAL),
            ("export", "unitts", table, out / "json", "--task", "audio", "--style", "audio-json", *LOCAL),
            ("export", "huggingface", table), ("export", "vocabulary", table, out / "vocabulary"),
        ]  # fmt: skip

    def chosen(self, rng: random.Random, commands: list[Command]) -> list[Command]:
        """Read the file that was damaged by several verbs."""
        return rng.sample(commands, min(4, len(commands)))


class Outputs(FileKind):
    """Output folders of jobs, with plans, records and statistics."""

    name = "outputs"

    def build(self, base: Path, codec: Path) -> None:
        """Run a job of each kind."""
        sounds(base / "speech")
        must("tokenize", base / "speech", base / "table", "--codec", codec, "--device", "cpu", *LOCAL)
        sound = base / "sound"
        for command in self._jobs(sound, base, codec):
            must(*command)

    def _jobs(self, place: Path, base: Path, codec: Path) -> list[Command]:
        table = base / "table"
        return [
            ("tokenize", base / "speech", place / "tokenize", "--codec", codec, "--device", "cpu", *LOCAL,
             "--part-seconds", 1),
            ("shard", base / "speech", place / "shard", *LOCAL, "--min-seconds", 0.1, "--shard-seconds", 1,
             "--deduplicate"),
            ("export", "sequences", table, place / "sequences", *LOCAL),
            ("export", "megatron", table, place / "megatron", *LOCAL),
            ("export", "unitts", table, place / "unitts", "--task", "audio", "--style", "audio-json", *LOCAL),
            ("export", "compact", table, place / "compact", *LOCAL),
        ]  # fmt: skip

    def damage(self, rng: random.Random, place: Path) -> tuple[Path, str]:
        """Damage a file of one output, more often one of the job's own."""
        job = rng.choice(sorted(path.name for path in place.iterdir()))
        paths = [path for path in self.targets(place / job) if not {"locks", "runs"} & {*path.parts}]
        own = [path for path in paths if "_codectok" in path.parts]
        path = rng.choice(own if rng.random() < 0.8 else paths)
        return path, f"{job}: {path.parent.name}/{damage_file(rng, path, paths)}"

    def damaged_files(self, sound: Path) -> list[Path]:
        """One file of each job."""
        return [self.targets(job)[0] for job in sorted(sound.iterdir())]

    def commands(self, place: Path, path: Path, base: Path, codec: Path) -> list[Command]:
        """Verify, inspect, resume, extend, and read the table."""
        output = place / path.relative_to(place).parts[0]
        again = next(command for command in self._jobs(place, base, codec) if output in command[2:4])
        reads: list[Command] = [("verify", output), (*again, "--dry-run"), again]
        if output.name != "sequences":  # which is another kind of table
            reads.append(("inspect", output))
        if output.name == "tokenize":
            with_codec = ("--codec", codec, "--device", "cpu")
            reads += [
                ("verify", output, *with_codec, "--reencode", 2),
                ("verify", output, "--sources"),
                ("export", "huggingface", output, "--overwrite"),
                ("export", "sequences", output, place / "new", *LOCAL),
                ("decode", output, place / "wav", *with_codec),
            ]
        if output.name == "shard":
            reads += [("verify", output, "--sources"), (*again, "--extend")]
        return reads


class Shards(FileKind):
    """Shards for training."""

    name = "shards"

    def build(self, base: Path, codec: Path) -> None:
        """Write shards of two tars, and a configuration."""
        sounds(base / "speech")
        must("shard", base / "speech", base / "sound" / "shards", *LOCAL, "--min-seconds", 0.1, "--shard-seconds", 1)
        (base / "sound" / "train.json").write_text(json.dumps(training(base / "sound" / "shards", base / "run")))

    def targets(self, place: Path) -> list[Path]:
        """The files that training reads."""
        return [path for path in super().targets(place / "shards") if "_codectok" not in path.parts]

    def commands(self, place: Path, path: Path, base: Path, codec: Path) -> list[Command]:
        """All verbs that read shards."""
        shards = place / "shards"
        settings = (f"data.shards={shards}", f"output={place / 'run'}")
        return [
            ("inspect", shards), ("verify", shards),
            ("tokenize", shards, place / "out", "--codec", codec, "--device", "cpu", *LOCAL),
            ("train", place / "train.json", *settings, "--engine", "local", "steps=1"),
            ("train", place / "train.json", *settings, "--engine", "local", "--dry-run"),
        ]  # fmt: skip


def training(shards: Path, output: Path) -> dict[str, object]:
    """Configuration of a run that takes seconds."""
    optimizer = {"learning_rate": 1e-4, "betas": [0.8, 0.99]}
    return {
        "codec": CODEC,
        "output": str(output),
        "data": {"shards": str(shards), "segment_seconds": 0.2, "batch_size": 2, "num_workers": 0},
        "generator_optimizer": optimizer,
        "discriminator_optimizer": optimizer,
        "loss": {"mel": [{"n_fft": 512, "hop_length": 128, "n_mels": 20, "weight": 45.0}]},
        "discriminators": {
            "period": {"periods": [5], "channels": [4, 4]},
            "scale": {"n_scales": 1, "layers": [{"channels": 4, "kernel_size": 15, "stride": 2},
                                                {"channels": 4, "kernel_size": 5}]},
            "stft": {"n_ffts": [512], "channels": 4},
            "start_step": 1,
        },
        "steps": 2,
        "log_interval": 1,
        "checkpoint_interval": 1,
        "device": "cpu",
    }  # fmt: skip


class Checkpoints(FileKind):
    """Training runs that are resumed or continued from."""

    name = "checkpoints"

    def build(self, base: Path, codec: Path) -> None:
        """Train two steps."""
        sounds(base / "speech")
        must("shard", base / "speech", base / "shards", *LOCAL, "--min-seconds", 0.1)
        (base / "train.json").write_text(json.dumps(training(base / "shards", base / "sound" / "run")))
        must("train", base / "train.json", "--engine", "local")

    def damage(self, rng: random.Random, place: Path) -> tuple[Path, str]:
        """Damage the newest checkpoint, sometimes as if its hash fitted, or another file of the run."""
        newest = place / "run" / "checkpoints" / "step-00000002"
        if rng.random() < 0.2:
            return super().damage(rng, place)
        path = newest / "training.pt"
        done = damage_file(rng, path, [])
        hash_file = newest / "training.sha256"
        if rng.random() < 0.7:
            if rng.random() < 0.5:
                hash_file.unlink()
                return path, f"{done}, without a hash"
            hash_file.write_text(hashlib.sha256(path.read_bytes()).hexdigest() + "\n")
            return path, f"{done}, with its hash"
        return path, done

    def commands(self, place: Path, path: Path, base: Path, codec: Path) -> list[Command]:
        """Resume, resume another run from it, and start from its codec."""
        run = place / "run"
        train: Command = ("train", base / "train.json", "--engine", "local")
        newest = run / "checkpoints" / "step-00000002"
        return [
            (*train, f"output={run}", "steps=3"),
            (*train, f"output={place / 'other'}", f"resume_from={newest}", "steps=3"),
            (*train, f"output={place / 'warm'}", f"init_from={run}", "steps=1"),
        ]

    def chosen(self, rng: random.Random, commands: list[Command]) -> list[Command]:
        """Mostly resume."""
        return [commands[rng.choice([0, 0, 1, 2])]]


class Configs(FileKind):
    """Configurations of training, in JSON and YAML."""

    name = "configs"

    def build(self, base: Path, codec: Path) -> None:
        """Write a configuration and shards for it."""
        sounds(base / "speech")
        must("shard", base / "speech", base / "shards", *LOCAL, "--min-seconds", 0.1)
        (base / "sound").mkdir()
        settings = training(base / "shards", base / "run")
        (base / "sound" / "train.json").write_text(json.dumps(settings))
        (base / "sound" / "train.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        must("train", base / "sound" / "train.yaml", "--engine", "local", "--dry-run")

    def damage(self, rng: random.Random, place: Path) -> tuple[Path, str]:
        """Damage values, bytes, or the structure of YAML."""
        path = place / rng.choice(["train.json", "train.yaml"])
        if path.suffix == ".json":
            return path, damage_file(rng, path, [place / "train.yaml"])
        return path, damage_yaml(rng, path)

    def commands(self, place: Path, path: Path, base: Path, codec: Path) -> list[Command]:
        """A dry run with the one that was damaged."""
        return [("train", path, f"output={place / 'run'}", "--engine", "local", "--dry-run", "device=cpu")]


YAML_TEXTS = (
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{n}: &{n} [{', '.join(['*' + p] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)),
    "a: &a [*a]\n", "steps: *none\n", "codec: !!python/object/apply:os.system ['true']\n", "? [1, 2]\n: 3\n",
    "steps: " + "9" * 5000 + "\n", "x: " + "[" * 5000 + "\n", "- " * 3000 + "\n", "<<: 3\n", "steps: 2001-99-99\n",
    "steps: 1:60:60:60\n", "!!binary x\n", "steps: !!int x\n", "steps: !!float []\n", "--- 1\n--- 2\n", "\ta: 1\n",
    "base: train.yaml\n", "base: /etc/passwd\n", "base: [1]\n", "steps: 0x" + "f" * 5000 + "\n", "2001-01-01: 2\n",
    "steps: !!timestamp x\n", "null: 1\n", "{}: 1\n", "steps: \"\\ud800\"\n", "steps: .inf\n",
)  # fmt: skip


def damage_yaml(rng: random.Random, path: Path) -> str:
    """Damage a YAML file: its lines, its values or its bytes."""
    data = path.read_bytes()
    kind = rng.choice(["bytes", "line", "line", "whole", "value"])
    if kind == "bytes":
        done, changed = damage_bytes(rng, data, b"a: &a [*a]\n")
        path.write_bytes(changed)
        return f"{path.name}: {done}"
    more = rng.choice(YAML_TEXTS)
    lines = data.decode().splitlines(keepends=True)
    if kind == "line":
        place = rng.randrange(len(lines))
        lines[place : place + rng.choice([0, 1])] = [more]
    elif kind == "whole":
        lines = [more]
    else:
        place = rng.randrange(len(lines))
        more = rng.choice(VALUES)
        lines[place] = re.sub(r"(:|-) .*$", lambda found: f"{found[1]} {more}", lines[place])
    path.write_text("".join(lines))
    return f"{path.name}: {kind} {more[:40]!r}"


class Models(FileKind):
    """Language models, tokenizers and templates."""

    name = "models"

    def build(self, base: Path, codec: Path) -> None:
        """Write a model of transformers with a tokenizer, a template and a table."""
        import torch
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

        folder = base / "sound" / "model"
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=270, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        tokenizer.train_from_iterator(["sample of words"] * 3, trainer)
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
        wrapped.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        wrapped.save_pretrained(folder)
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=280, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=64,
        )  # fmt: skip
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        rows = [{"text": "{text} {language}"}, {"codes": "row"}]
        template = {"begin": [{"token": "<|inter_audio_begin|>"}], "row": rows, "end": [{"token": "eos"}]}
        (base / "sound" / "template.yaml").write_text(yaml.safe_dump(template, sort_keys=False))
        sounds(base / "speech")
        lines = [{"path": f"clip-{n}.wav", "text": f"words {n}", "language": "en"} for n in range(4)]
        (base / "speech" / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        must("tokenize", base / "speech" / "list.jsonl", base / "table", "--codec", codec, "--device", "cpu", *LOCAL)

    def damage(self, rng: random.Random, place: Path) -> tuple[Path, str]:
        """Damage the template as YAML, or a file of the model."""
        if rng.random() < 0.2:
            path = place / "template.yaml"
            return path, damage_yaml(rng, path)
        path = rng.choice(self.targets(place / "model"))
        if path.suffix == ".jinja" and rng.random() < 0.5:
            path.write_text(rng.choice(JINJA))
            return path, "jinja"
        return path, damage_file(rng, path, self.targets(place))

    def commands(self, place: Path, path: Path, base: Path, codec: Path) -> list[Command]:
        """All verbs that read models, tokenizers and templates."""
        model, table, out = place / "model", base / "table", place / "out"
        text = ("--tokenizer", model, *LOCAL)
        template: Command = ("export", "sequences", table, out / "own", *text, "--task", place / "template.yaml")
        if path.name == "template.yaml":
            return [template]
        return [
            ("export", "language-model", model, out / "model", "--codec", codec),
            ("export", "tokenizer", model, out / "tokenizer", "--codec", codec),
            ("export", "sequences", table, out / "tts", *text, "--task", "tts"),
            template,
            ("export", "megatron", table, out / "megatron", "--model", model, "--eos", 0, *LOCAL),
        ]


JINJA = (
    "{% for a in range(10**9) %}{% for b in range(10**9) %}x{% endfor %}{% endfor %}",
    "{{ 'x' * 10**10 }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% include '/etc/passwd' %}",
    "{% for",
    "\0",
    "{{ [0].__init__.__globals__ }}" * 10_000,
)
KINDS: tuple[FileKind, ...] = (
    Codecs(), Distilcodec(), Checkpoints(), Shards(), Outputs(), Tables(), Configs(), Models()
)  # fmt: skip
