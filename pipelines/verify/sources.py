"""Reads the sources of an output again with ffmpeg, and compares their durations with the output."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from codectok.audio.ffmpeg import decoding as ffmpeg
from codectok.errors import AudioError, InputError, NotAudioError, VerificationError
from codectok.pipelines.engine.planning.plan import Plan, load_plan
from codectok.pipelines.engine.planning.unit import Unit
from codectok.sources.clip import Clip
from codectok.sources.clips import clips_of
from codectok.sources.kinds import CONTAINERS
from codectok.sources.rejects import Reject
from codectok.sources.source import Source
from codectok.storage import Storage

from .coverage import Covered, coverage_of_unit
from .intervals import Interval, seconds_of, seconds_without, union, within
from .output import complete_records

VERBS = ("shard", "tokenize")
# Longer than a frame of a codec, and than the ends that decoders cut differently.
TOLERANCE_SECONDS = 0.1
BLOCK_FRAMES = 1 << 16
NAMED_SOURCES = 3


@dataclass(frozen=True)
class ComparedSource:
    """A source that ffmpeg has read.

    Attributes:
        name: dataset and source.
        ffmpeg_seconds: duration by ffmpeg of the spans that were planned.
        output_seconds: duration that is written or rejected.
        different: True if they differ by more than the tolerance.
        remark: why a part of it was not compared; "" if all was.
    """

    name: str
    ffmpeg_seconds: float
    output_seconds: float
    different: bool
    remark: str = ""


@dataclass(frozen=True)
class UnreadSource:
    """A source that ffmpeg cannot read, and why."""

    name: str
    message: str


@dataclass
class SourcesReport:
    """Result of reading sources again.

    Attributes:
        planned: number of files and of clips in tars and Parquet files.
        compared: number of sources that ffmpeg has read.
        seconds: their duration.
        different: sources with another duration than in the output.
        partly: sources that were compared up to some place only.
        unread: sources that ffmpeg cannot read.
    """

    planned: int = 0
    compared: int = 0
    seconds: float = 0.0
    different: list[ComparedSource] = field(default_factory=list)
    partly: list[ComparedSource] = field(default_factory=list)
    unread: list[UnreadSource] = field(default_factory=list)

    def add(self, result: ComparedSource | UnreadSource | None) -> None:
        """Count a source; None stands for a file in which neither the job nor ffmpeg finds audio."""
        if result is None:
            self.planned -= 1
            return
        if isinstance(result, UnreadSource):
            self.unread.append(result)
            return
        self.compared += 1
        self.seconds += result.ffmpeg_seconds
        if result.different:
            self.different.append(result)
        elif result.remark:
            self.partly.append(result)

    def check(self) -> None:
        """Raise a `VerificationError` that names the first sources with another duration."""
        if self.different:
            named = "; ".join(
                f"{one.name} has {one.ffmpeg_seconds:.2f} s by ffmpeg and {one.output_seconds:.2f} s in the output"
                for one in self.different[:NAMED_SOURCES]
            )
            count = f"{len(self.different):,} of {self.compared:,} sources"
            raise VerificationError(f"The durations of {count} differ from the output: {named}.")


@dataclass(frozen=True)
class _Question:
    """Audio for ffmpeg to read.

    Attributes:
        name: dataset and source.
        audio: returns the file or its bytes.
        where: names it in messages.
        spans: that were planned, in seconds of the recording; an infinite end stands for the end of the audio.
        start: start of the audio in the recording.
        alone: True if the recording consists of this audio only, so that the output must not hold more.
        ignored: True if the job found no audio in it.
    """

    name: str
    audio: Callable[[], Path | bytes]
    where: str
    spans: Sequence[Interval]
    covered: Covered
    start: float = 0.0
    alone: bool = True
    ignored: bool = False


def verify_sources(
    storage: Storage, share: float = 1.0, seed: int = 0, on_source: Callable[[], None] = lambda: None
) -> SourcesReport:
    """Read a share of the sources of a complete output with ffmpeg, and compare durations.

    Every second that ffmpeg reads must be written or rejected, and no more than that. From a reject of unknown
    duration on, and where ffmpeg stops at damage, nothing is compared. Call `check` of the result.

    Args:
        storage: output of `shard` or `tokenize`.
        share: of the files, and of the clips in each tar and Parquet file, at least one of each.
        seed: for the random choice.
        on_source: called after each source.

    Raises:
        InputError: ffmpeg is not installed, `share` is out of range, or the output is of another job.
        VerificationError: the output is not complete, or a file of it is damaged.
    """
    if not 0 < share <= 1:
        raise InputError(f"The share of the sources must be a number above 0 and up to 1, not {share:g}.")
    plan = load_plan(storage, {})
    if plan is None or plan.header.verb not in VERBS:
        raise InputError(f"{storage.url} is not the output of `shard` or `tokenize`; leave out --sources.")
    if not ffmpeg.is_installed():
        raise InputError("Sources are read again by ffmpeg, which is not installed; pip install 'codectok[ffmpeg]'.")
    report = SourcesReport()
    chosen = _chosen_files(plan, share, seed)
    questions = itertools.chain.from_iterable(
        _questions(plan.unit(record.unit), coverage_of_unit(storage, record), chosen, share, seed, report)
        for record in complete_records(storage, plan)
    )
    for result in _answers(questions):
        report.add(result)
        on_source()
    return report


def _chosen_files(plan: Plan, share: float, seed: int) -> set[bytes]:
    """Return the ranks of the files to read, which are not containers."""
    ranks = sorted({_rank(seed, s.dataset, s.path) for s in _sources(plan) if s.kind not in CONTAINERS})
    return set(ranks[: math.ceil(share * len(ranks))])


def _sources(plan: Plan) -> Iterator[Source]:
    for outline in plan.units:
        yield from plan.unit(outline.number).sources


def _rank(seed: int, *names: str) -> bytes:
    text = "\0".join([str(seed), *names])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8]


def _questions(
    unit: Unit,
    covered: dict[tuple[str, str], Covered],
    chosen: set[bytes],
    share: float,
    seed: int,
    report: SourcesReport,
) -> Iterator[_Question | UnreadSource]:
    """Yield the sources of a unit to read; counts all of them in `report`."""
    for _, group in itertools.groupby(unit.sources, key=lambda source: (source.dataset, source.path)):
        sources = list(group)
        first = sources[0]
        if first.kind in CONTAINERS:
            for source in sources:
                yield from _questions_in(source, covered, share, seed, report)
            continue
        report.planned += 1
        if _rank(seed, first.dataset, first.path) not in chosen:
            continue
        name = f"{first.dataset}/{first.name}"
        usable = [source for source in sources if source.problem is None]
        if not usable:
            yield UnreadSource(name, str(first.problem))
            continue
        spans = [Interval(one.start or 0.0, math.inf if one.end is None else one.end) for one in usable]
        known = covered.get((first.dataset, first.name))
        ignored = first.kind == "unknown" and known is None
        yield _Question(name, usable[0].audio, first.where, spans, known or Covered(), ignored=ignored)


def _questions_in(
    container: Source, covered: dict[tuple[str, str], Covered], share: float, seed: int, report: SourcesReport
) -> Iterator[_Question | UnreadSource]:
    """Yield the clips of a tar or Parquet file to read: the first, and a share of the others."""
    first = True
    for clip in clips_of(container):
        if isinstance(clip, Reject):
            report.planned += 1
            yield UnreadSource(f"{clip.dataset}/{clip.source}", clip.message)
        if not isinstance(clip, Clip):
            continue
        report.planned += 1
        rank = int.from_bytes(_rank(seed, container.dataset, container.path, clip.id)) / 2**64
        if first or rank < share:
            span = clip.span
            is_whole = span.start == 0 and span.end is None
            # Segments name the recording that they were cut from; its other segments and spans may be here as well.
            alone = is_whole and clip.source.startswith(f"{container.name}/")
            known = covered.get((clip.dataset, clip.source), Covered())
            spans = [Interval(clip.start, math.inf if span.end is None else clip.offset + span.end)]
            name = f"{clip.dataset}/{clip.source}"
            yield _Question(name, _held(clip.audio), clip.name, spans, known, clip.offset, alone)
        first = False


def _held(audio: Path | bytes) -> Callable[[], Path | bytes]:
    return lambda: audio


def _answers(questions: Iterator[_Question | UnreadSource]) -> Iterator[ComparedSource | UnreadSource | None]:
    """Answer questions in order, several at a time; few are held in memory."""
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[ComparedSource | UnreadSource | None]] = deque()
        try:
            for question in questions:
                pending.append(pool.submit(_answer, question))
                if len(pending) > 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _answer(question: _Question | UnreadSource) -> ComparedSource | UnreadSource | None:
    if isinstance(question, UnreadSource):
        return question
    seconds, problem = 0.0, None
    try:
        with ffmpeg.decoding(ffmpeg.Input(question.audio(), question.where)) as decoded:
            for block in decoded.blocks(BLOCK_FRAMES):
                seconds += len(block) / decoded.sample_rate
    except (FileNotFoundError, PermissionError) as error:
        return UnreadSource(question.name, f"{question.where} cannot be opened: {error.strerror}.")
    except AudioError as error:
        if not seconds and question.ignored and isinstance(error, NotAudioError):
            return None
        if not seconds:
            return UnreadSource(question.name, str(error))
        problem = str(error)
    return _compare(question, seconds, problem)


def _compare(question: _Question, seconds: float, problem: str | None) -> ComparedSource:
    """Compare what the output covers with the `seconds` that ffmpeg has read, up to a `problem` if there is one."""
    begin, end, covered = question.start, question.start + seconds, question.covered
    planned, known = within(question.spans, begin, end), union(covered.intervals)
    shown = ComparedSource(question.name, seconds_of(planned), seconds_of(known), different=False)
    if covered.unknown_from < end - TOLERANCE_SECONDS:
        shown = replace(shown, remark=f"rejected from {covered.unknown_from:.2f} s on, with unknown duration")
    elif problem is not None:
        shown = replace(shown, remark=f"ffmpeg stops at {end:.2f} s: {problem}")
    compared = within(planned, begin, covered.unknown_from)
    different = seconds_without(compared, known) > TOLERANCE_SECONDS
    if question.alone and problem is None:
        different |= seconds_without(within(known, -math.inf, covered.unknown_from), planned) > TOLERANCE_SECONDS
    return replace(shown, different=different)
