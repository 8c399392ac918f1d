"""The commands that run, in stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command line without `codectok`, and its expected exit code."""

    line: str
    expected: int = 0


@dataclass(frozen=True)
class Stage:
    """Chains of commands. Commands of a chain run in order, chains in parallel.

    Attributes:
        needs: stages that must have run.
    """

    chains: Sequence[Sequence[Command]]
    needs: tuple[str, ...] = ()


def chain(lines: str, expected: int = 0) -> list[Command]:
    """Return a chain with one command per line."""
    return [Command(line.strip(), expected) for line in lines.strip().splitlines() if line.strip()]


def each(lines: str, expected: int = 0) -> list[list[Command]]:
    """Return one chain per line."""
    return [[command] for command in chain(lines, expected)]


LOCAL = "--engine local --max-rejects 1"
EVERY_SOURCE = (
    "voices=inputs/voices inputs/letters inputs/made inputs/broken inputs/single/talk.mp3"
    " 'inputs/pattern/*/wav/**/*.flac' inputs/lists/recordings.csv inputs/lists/stretches.jsonl inputs/lists/tab.tsv.gz"
    " inputs/lists/cuts.jsonl.gz inputs/tars inputs/parquet"
)
SOME_SOURCES = "inputs/voices inputs/letters inputs/lists/stretches.jsonl"
TINY = (
    "codec={} codec.name=tiny codec.mel.n_mels=40 codec.encoder.depths=[2] codec.encoder.dims=[16]"
    " codec.encoder.drop_path_rate=0.2 codec.decoder.initial_channels=8 codec.decoder.upsample_rates=[16,16]"
    " codec.decoder.upsample_kernel_sizes=[16,16] codec.decoder.resblock_kernel_sizes=[3]"
    " codec.decoder.resblock_dilations=[[1]]"
)
GROUPED = (
    "codec.quantizer.type=grvq codec.quantizer.codebook_size=32 codec.quantizer.codebook_dim=8"
    " codec.quantizer.n_groups=2 codec.quantizer.n_residuals=2 codec.quantizer.time_factors=[2]"
)
SHORT = "device=cpu data.segment_seconds=0.256 data.batch_size=4 log_interval=2 discriminators.start_step=3 steps=6"
SHARDS = "data.shards=shard/by-speech"
JUDGED = "'validation={shards: shard/by-speech, interval: 10, clips: 3, max_seconds: 2, listen: 1}'"
NANO = (
    f"train nano output=train/nano {SHARDS} {JUDGED} device=cpu seed=7 data.segment_seconds=0.32 data.batch_size=4"
    " data.num_workers=1 log_interval=5 checkpoint_interval=6 keep_checkpoints=2 discriminators.start_step=8"
)
MIXED = (
    "'data={sources: [{shards: shard/by-speech, weight: 2}, {shards: shard/everything, category: sea, weight: 1}],"
    " segment_seconds: 0.256, batch_size: 4}'"
)
STUDENT, TEACHER = "--codec import/student --device cpu", "--codec import/teacher --device cpu"
MEASURES = "--metrics mel,si_sdr,stft --controls original,noise --engine local"
TOKENIZER, MODEL = "--tokenizer inputs/models/tokenizer", "--model inputs/models/language"
TALKS = "tokenize/talks"

STAGES = {
    "import": Stage(
        each("""
            import-distilcodec inputs/golden/student import/student
            import-distilcodec inputs/golden/teacher import/teacher --step 42
        """)
    ),
    "shard": Stage(
        [
            chain(f"""
                shard {EVERY_SOURCE} shard/everything --shard-seconds 60 --limit 2 {LOCAL}
                shard {EVERY_SOURCE} shard/everything --shard-seconds 60 {LOCAL}
                shard {EVERY_SOURCE} shard/everything --shard-seconds 60 {LOCAL}
            """),
            chain(f"""
                shard {SOME_SOURCES} shard/grown --min-seconds 1 --max-seconds 4 --validation 0.2 {LOCAL}
                shard {SOME_SOURCES} inputs/pattern shard/grown --min-seconds 1 --max-seconds 4 --validation 0.2 \
--extend {LOCAL}
                shard {SOME_SOURCES} shard/parts --shard-seconds 20 --part 2/2 {LOCAL}
                shard {SOME_SOURCES} shard/parts --shard-seconds 20 --part 1/2 {LOCAL}
            """),
            chain(f"""
                shard {EVERY_SOURCE} inputs/twice shard/unique --deduplicate --shard-seconds 100 {LOCAL}
                shard {EVERY_SOURCE} shard/limited --segmenter fixed --format wav --sample-rate 16000 --max-seconds 3 \
--min-loudness -40 --max-loudness -1 --max-clipping 0.01 --min-bandwidth 5000 {LOCAL}
                shard {SOME_SOURCES} shard/preview --dry-run {LOCAL}
            """),
            chain(f"""
                shard inputs/speech shard/by-speech --segmenter vad --min-seconds 1 --validation 0.3 \
--shard-seconds 40 {LOCAL}
                shard {EVERY_SOURCE} shard/by-workers --shard-seconds 60 --workers 2 --max-rejects 1
            """),
        ]
    ),
    "train": Stage(
        [
            chain(f"{NANO} steps=13\n{NANO} steps=20"),
            chain(f"""
                train nano output=train/grouped {SHARDS} {TINY} {GROUPED} {SHORT} accumulation=2 weight_average=0.9 \
loss.waveform=1.0 loss.diversity=0.1
                train nano output=train/simvq {MIXED} {TINY} device=cpu steps=6 log_interval=2 precision=bfloat16 \
'codec.quantizer={{type: simvq, codebook_size: 64, codebook_dim: 16}}' init_from=train/grouped/codec loss.distillation=1
                train nano output=train/fsq {SHARDS} {TINY} {SHORT} 'codec.quantizer={{type: fsq, levels: [5, 4, 3]}}'
                train nano output=train/resumed {SHARDS} {TINY} 'codec.quantizer={{type: fsq, levels: [5, 4, 3]}}' \
{SHORT} steps=8 resume_from=train/fsq/checkpoints/step-00000006 generator_optimizer.learning_rate=1e-4
                train inputs/configs/stages.yaml output=train/stages {SHARDS}
                train nano output=train/ranks {SHARDS} {TINY} {GROUPED} {SHORT} --engine ray --workers 2
            """),
        ],
        needs=("shard",),
    ),
    "tokenize": Stage(
        [
            chain(f"""
                tokenize shard/everything tokenize/shards {STUDENT} --part-seconds 60 --limit 1 {LOCAL}
                tokenize shard/everything tokenize/shards {STUDENT} --part-seconds 60 {LOCAL}
                tokenize inputs/made inputs/voices tokenize/slices {TEACHER} --max-seconds 2.5 --dtype bfloat16 {LOCAL}
                tokenize {EVERY_SOURCE} tokenize/by-workers {STUDENT} --part-seconds 60 --workers 2 --max-rejects 1
            """),
            chain(f"""
                tokenize {EVERY_SOURCE} tokenize/everything {TEACHER} --part-seconds 60 --max-seconds 4 {LOCAL}
                tokenize inputs/lists/recordings.csv {TALKS} {STUDENT} --part-seconds 30 {LOCAL}
                tokenize inputs/lists/recordings.csv inputs/lists/cuts.jsonl.gz {TALKS} {STUDENT} --part-seconds 30 \
--extend {LOCAL}
                tokenize inputs/letters tokenize/packed {STUDENT} --pack-frames 300 --encoder-threads 2 {LOCAL}
            """),
        ],
        needs=("import", "shard"),
    ),
    "clips": Stage(
        [
            chain(f"""
                encode inputs/voices inputs/made/tone.wav inputs/broken/text.wav clips/student.npz {STUDENT}
                decode clips/student.npz clips/from-npz {STUDENT}
                encode inputs/letters inputs/single/talk.mp3 clips/teacher.parquet {TEACHER}
                decode clips/teacher.parquet clips/from-parquet {TEACHER}
                reconstruct inputs/single/talk.mp3 clips/again.wav {TEACHER}
            """),
            chain(f"""
                decode {TALKS} clips/from-table {STUDENT} --where "duration > 3 and language == 'nl'"
                reconstruct inputs/made/sweep.opus clips/again.flac {STUDENT} --dtype bfloat16
                evaluate inputs/voices inputs/broken clips/evaluation-teacher {TEACHER} {MEASURES} --max-rejects 1
                evaluate {EVERY_SOURCE} clips/evaluation {STUDENT} {MEASURES} --share 0.2 --max-seconds 1.5
            """),
        ],
        needs=("import", "tokenize"),
    ),
    "trained": Stage(
        [
            chain("encode inputs/voices trained/nano.npz --codec train/nano/codec --device cpu"),
            chain("""
                encode inputs/letters trained/grouped.npz --codec train/grouped/codec --device cpu
                encode inputs/letters trained/simvq.npz --codec train/simvq/codec --device cpu
                decode trained/grouped.npz trained/decoded --codec train/grouped/codec --device cpu
            """),
        ],
        needs=("train",),
    ),
    "export": Stage(
        [
            chain(f"""
                export vocabulary import/teacher export/vocabulary-of-codec
                export vocabulary {TALKS} export/vocabulary-of-table {MODEL} {TOKENIZER}
                export tokenizer inputs/models/tokenizer export/tokenizer --codec import/student {MODEL}
                export language-model inputs/models/language export/language --codec import/student
                export language-model inputs/models/language export/codebook --codec import/student --offset 600 \
--start codebook --scale rms
                export language-model inputs/models/tied export/tied --codec import/teacher --start random --seed 3
                export language-model inputs/models/tied export/projected --codec import/teacher --scale 7.5
                export sequences {TALKS} export/with-extended --tokenizer export/language --task asr {LOCAL}
            """),
            chain(f"""
                export compact tokenize/shards export/compact --file-megabytes 0.02 --group-megabytes 0.001 {LOCAL}
                export huggingface export/compact
                export unitts {TALKS} export/unitts --task tts {MODEL} {LOCAL}
                export unitts {TALKS} tokenize/shards export/unitts-asr --task asr --part-megabytes 0.01 {LOCAL}
                export unitts tokenize/everything export/unitts-audio --task audio --style audio-json {LOCAL}
            """),
            chain(f"""
                export sequences tokenize/everything export/audio --offset 1000 --eos 7 --part-megabytes 0.02 {LOCAL}
                export sequences {TALKS} export/packed --task tts {TOKENIZER} --packing first-fit --length 512 \
--too-long truncate {LOCAL}
                export sequences {TALKS} export/interleaved --task interleaved {TOKENIZER} {MODEL} --packing next-fit \
--length 700 --too-long split --part-megabytes 0.01 {LOCAL}
                export sequences {TALKS} export/voices --task tts --voice speaker {TOKENIZER} --length 800 {LOCAL}
                export sequences {TALKS} sound=tokenize/shards export/mixed --task inputs/texts/song.yaml \
--task sound=audio {TOKENIZER} --text inputs/texts/books.jsonl --text pages=inputs/texts/pages.parquet \
--weight talks=1 --weight sound=1.5 --weight books=1 --weight pages=0.5 --until last {LOCAL}
            """),
            chain(f"""
                export megatron {TALKS} export/megatron --task tts {TOKENIZER} {MODEL} --packing next-fit --length 600 \
--too-long keep {LOCAL}
                export megatron {TALKS} export/megatron-asr --task asr {TOKENIZER} --part-megabytes 0.01 {LOCAL}
                export megatron {TALKS} export/megatron-by-workers --task asr {TOKENIZER} --part-megabytes 0.01 \
--workers 2
            """),
        ],
        needs=("import", "tokenize"),
    ),
    "verify": Stage(
        [
            chain(f"""
                verify shard/everything
                verify shard/unique
                verify shard/limited
                verify tokenize/shards {STUDENT} --reencode 4 --decode 2 --to verify/shards
                verify tokenize/everything {TEACHER} --reencode 4 --decode 2 --to verify/everything --seed 1
                verify {TALKS} {STUDENT} --reencode 3
            """),
            chain(f"""
                verify export/compact
                verify export/unitts-audio
                verify export/mixed
                verify export/megatron
                inspect import/teacher
                inspect shard/everything
                inspect {TALKS}
                inspect inputs/made/chirp.ogg
                inspect clips/student.npz
            """),
        ],
        needs=("shard", "tokenize", "clips", "export"),
    ),
    "refuse": Stage(
        [
            chain(
                f"""
                shard inputs/voices shard/everything {LOCAL}
                shard inputs/nowhere refuse/nothing {LOCAL}
                shard inputs/voices refuse/nothing --min-seconds 9 {LOCAL}
                tokenize inputs/voices refuse/nothing --codec inputs/voices {LOCAL}
                tokenize inputs/letters tokenize/packed {TEACHER} {LOCAL}
                train nano data.shards=inputs/voices output=refuse/nothing
                train nano data.shards=shard/grown output=refuse/nothing no_such_key=1
                """,
                expected=2,
            ),
            chain(
                f"""
                encode inputs/voices refuse/nothing.txt {STUDENT}
                decode clips/student.npz refuse/nothing {TEACHER}
                reconstruct inputs/made/tone.wav refuse/nothing.mp3 {STUDENT}
                evaluate inputs/voices clips/evaluation {STUDENT} {MEASURES}
                export sequences {TALKS} refuse/nothing --task tts {LOCAL}
                export language-model export/language refuse/nothing --codec import/student
                export huggingface export/compact
                verify inputs/voices
                import-distilcodec inputs/voices refuse/nothing
                """,
                expected=2,
            ),
            [
                *chain("shard inputs/broken refuse/broken --engine local", expected=1),
                *chain("tokenize inputs/broken refuse/broken-rows --codec import/student --engine local", expected=1),
                *chain("shard inputs/texts refuse/no-audio --engine local", expected=1),
                *chain("encode inputs/broken/text.wav refuse/nothing.npz --codec import/student", expected=2),
                *chain("shard --no-such-option", expected=2),
            ],
        ],
        needs=("shard", "tokenize", "clips", "export"),
    ),
}


def with_needed(names: Iterable[str]) -> list[str]:
    """Return the named stages and the stages that they need, in order."""
    wanted: set[str] = set()

    def want(name: str) -> None:
        wanted.add(name)
        for needed in STAGES[name].needs:
            want(needed)

    for name in names:
        want(name)
    return [name for name in STAGES if name in wanted]
