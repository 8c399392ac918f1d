"""Job `evaluate`: reconstructs a test set with codecs and controls, and measures each clip."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pydantic import JsonValue

from codectok.audio.files import encode_audio
from codectok.codec import Codec
from codectok.device import check_precision, device_class, resolve_device
from codectok.errors import CodectokError, InputError
from codectok.evaluation.codes.stability import QUANTITIES as STABILITY
from codectok.evaluation.controls.controls import CONTROLS, Control
from codectok.evaluation.metrics.base import Metric, Quantity
from codectok.evaluation.metrics.registry import installed_versions, metric_name, metrics, missing_packages
from codectok.loading import check_fingerprint, kernels_of_workers, load_codec
from codectok.phases import WRITING
from codectok.pipelines.engine.job import Job, JobReporter, RunUnit, Server, WorkerContext
from codectok.pipelines.engine.output.unit_output import UnitOutput
from codectok.pipelines.engine.planning.cutting import CuttingPolicy
from codectok.pipelines.engine.planning.reading import READING_OPTIONS, reading_options
from codectok.pipelines.engine.planning.unit import Unit
from codectok.pipelines.engine.table_job import write_rows
from codectok.pipelines.engine.timing import CODEC
from codectok.sources.listing.sources import Listing
from codectok.sources.parquet.check import check_audio_columns

from .clips import EvaluatedClip, clips_to_measure
from .examples import ExampleChooser, badness
from .facts import EvaluationFacts
from .files import ORIGINAL, audio_name, clips_name, examples_name, rows_schema
from .measuring import ClipMeasurer, CodecFacts, MeasuredClip
from .options import EvaluateOptions, NamedCodec
from .reconstruction import CodecServer, CodecsOnDevice, Reconstruct, remote
from .results import EvaluationReporter
from .verify import EvaluationVerifier

# Metrics that tell the worst clips; the first that is measured decides.
WORST_BY = ("mel", "mel_l1", "pesq", "stoi")


class EvaluateJob(Job):
    """Measures the clips of a test set; each unit becomes a table of rows, and some examples to listen to.

    Args:
        options: which codecs are measured, and how.
        gpu_model: name of the cluster's GPUs, for a driver without a GPU; None to use `options.device`.
    """

    verb = "evaluate"
    row_name = "clips"
    bytes_version = 2  # 2: of columns of Parquet with one name the outer one is used; more formats in binary columns
    verifier = EvaluationVerifier

    def __init__(self, options: EvaluateOptions, gpu_model: str | None = None) -> None:
        self.settings = options
        device = torch.device("cuda") if gpu_model else resolve_device(options.device)
        check_precision(options.dtype, device)
        self.device_class = gpu_model or device_class(device)
        elsewhere = gpu_model is not None
        self.codecs = tuple(self._facts(named, device, elsewhere) for named in options.codecs)
        self.sample_rate = max(codec.decoded_rate for codec in self.codecs)
        metrics_used = self._metrics()
        self.controls = self._controls()
        self.quantities: tuple[Quantity, ...] = (
            *(quantity for metric in metrics_used for quantity in metric.quantities),
            *(STABILITY if options.stability else ()),
        )
        if not self.quantities:
            raise InputError("No metric is left to measure; name one with --metrics, or leave --no-stability out.")
        self._versions: dict[str, JsonValue] = {
            metric_name(metric): {**installed_versions(metric)} for metric in metrics_used
        }

    def _facts(self, named: NamedCodec, device: torch.device, elsewhere: bool) -> CodecFacts:
        # On the CPU, to leave the GPU's memory to the workers.
        name, dtype = named.name, self.settings.dtype
        codec = load_codec(name, "cpu", "float32" if dtype == "tf32" else dtype)
        if dtype == "tf32" and not isinstance(codec, Codec):
            raise InputError(f"The codec {name} computes in float32 only; leave --dtype out.")
        codec.check_decoder()
        kernels = kernels_of_workers(codec, name, self.settings.kernels, device, dtype, elsewhere)
        found = {"dtype": dtype, "tf32": dtype == "tf32", "device": self.device_class, "kernels": kernels}
        return CodecFacts(named.label, codec.describe().model_copy(update=found), codec.decoded_sample_rate)

    def _metrics(self) -> list[Metric]:
        return metrics(self.settings.utmos, self.settings.recognizer, self.settings.metrics)

    def _controls(self) -> tuple[Control, ...]:
        wanted = self.settings.controls
        if wanted is None:
            return tuple(control for control in CONTROLS if control.available())
        known = {control.name: control for control in CONTROLS}
        for name in wanted:
            if name not in known:
                raise InputError(f"There is no control {name}; known are {', '.join(known)}.")
            if missing := known[name].missing_tools():
                raise InputError(
                    f"The control {name} needs {' and '.join(missing)}; install the package {known[name].package}."
                )
        return tuple(control for control in CONTROLS if control.name in wanted)

    def options(self) -> Mapping[str, JsonValue]:
        """Everything that determines the figures; codecs by their fingerprints, since their folders may move."""
        settings = self.settings
        utmos = settings.utmos
        kernels = [codec.description.kernels for codec in self.codecs]
        return {
            "codecs": [[codec.label, codec.description.codec_fingerprint] for codec in self.codecs],
            "dtype": settings.dtype,
            **({"kernels": kernels} if "triton" in kernels else {}),
            "device": self.device_class,
            "sample_rate": self.sample_rate,
            "metrics": self._versions,
            "controls": [control.name for control in self.controls],
            "stability": settings.stability,
            "utmos": None if utmos is None else hashlib.sha256(utmos.read_bytes()).hexdigest(),
            "recognizer": settings.recognizer,
            "preset": settings.preset,
            "references": settings.references,
            "max_seconds": settings.max_seconds,
            "share": settings.share,
            "unit_seconds": settings.unit_seconds,
            **reading_options(**{name: getattr(settings, name) for name in READING_OPTIONS}),
            **settings.sound.values(),
        }

    def check_sources(self, listing: Listing) -> None:
        """Raise an `InputError` if the audio column of Parquet files is unknown."""
        check_audio_columns(listing, self.settings.audio_column)

    @property
    def cutting(self) -> CuttingPolicy:
        """Units of `unit_seconds`."""
        return CuttingPolicy(self.settings.unit_seconds)

    @property
    def server(self) -> Server | None:
        """The codecs on a GPU; None on CPUs, where each worker has them."""
        if self.device_class == "cpu":
            return None
        return CodecServer(self.settings, [codec.description for codec in self.codecs], self.device_class)

    @property
    def reporter(self) -> JobReporter:
        """Joins the rows of all units, and writes the summary and the page."""
        settings = self.settings
        missing = dict(missing_packages(settings.recognizer)) if settings.metrics is None else {}
        for control in CONTROLS if settings.controls is None else ():
            if not control.available():
                missing[control.name] = control.package or ""
        facts = EvaluationFacts(
            {codec.label: codec.description for codec in self.codecs},
            [control.name for control in self.controls],
            self.quantities,
            self.sample_rate,
            missing,
            settings.preset,
        )
        return EvaluationReporter(facts, self.worst_by, settings.references)

    @property
    def worst_by(self) -> Quantity | None:
        """Metric that tells the worst clips; None if no metric has a direction."""
        directed = {quantity.name: quantity for quantity in self.quantities if quantity.better != "neither"}
        return next((directed[name] for name in (*WORST_BY, *directed) if name in directed), None)

    def check_machine(self) -> None:
        """Raise a `CodectokError` if the machine has other codecs, or other packages of metrics."""
        for named, codec in zip(self.settings.codecs, self.codecs, strict=True):
            check_fingerprint(named.name, codec.description.codec_fingerprint)
        self._checked_metrics()

    def start(self, context: WorkerContext) -> RunUnit:
        """Load the codecs, unless a server has them."""
        if context.server is None:
            with context.clock.during(CODEC):
                descriptions = [codec.description for codec in self.codecs]
                on_device = CodecsOnDevice(self.settings, descriptions, self.device_class)
            reconstruct: Reconstruct = on_device.reconstruct
        else:
            reconstruct = remote(context.server)
        measurer = ClipMeasurer(
            *(self.codecs, reconstruct, self.controls, self._checked_metrics(), self.sample_rate),
            self.settings.stability,
        )
        return partial(self._measure_unit, measurer)

    def _checked_metrics(self) -> list[Metric]:
        """The metrics, in a worker; a `CodectokError` if its packages are others than those of the driver."""
        found = self._metrics()
        versions = {metric_name(metric): {**installed_versions(metric)} for metric in found}
        if versions != self._versions:
            names = sorted(
                name for name in {*versions, *self._versions} if versions.get(name) != self._versions.get(name)
            )
            raise CodectokError(
                f"A worker has other packages than the driver for {', '.join(names)}; install the same everywhere."
            )
        return found

    def _measure_unit(self, measurer: ClipMeasurer, unit: Unit, output: UnitOutput) -> None:
        """Write the rows and the examples of a unit."""
        examples = ExampleChooser()
        rates = [self.sample_rate, *dict.fromkeys(codec.description.sample_rate for codec in self.codecs)]
        path = output.folder / clips_name(unit.number)
        path.parent.mkdir(parents=True, exist_ok=True)
        clips = clips_to_measure(unit, output, self.settings, list(dict.fromkeys(rates)))

        def rows() -> Iterator[Mapping[str, Any]]:
            for number, clip in enumerate(clips):
                measured = measurer.measure(clip, output.clock)
                self._keep(clip, measured, output, examples)
                if self.settings.references:
                    self._write_audio(clip, measured, output, unit.number, number)
                yield from measured.rows

        with output.clock.during(WRITING):
            write_rows(path, rows_schema(self.quantities), output.clock.steps("other", rows()))
            examples.write(output.folder / examples_name(unit.number))

    def _keep(self, clip: EvaluatedClip, measured: MeasuredClip, output: UnitOutput, examples: ExampleChooser) -> None:
        original = clip.samples[self.sample_rate]
        codes = sum(row["n_frames"] or 0 for row in measured.rows)
        output.keep(clip.clip.dataset, len(original) / self.sample_rate, codes, clip.clip.span)
        if clip.is_cut:
            output.observe("cut", 0)
        examples.add(
            clip,
            self._worst_of(measured.rows[: len(self.codecs)]),
            {ORIGINAL: original, **measured.audio},
            self.sample_rate,
        )

    def _worst_of(self, rows: Sequence[Mapping[str, Any]]) -> float | None:
        """Badness of the worst codec; infinite if one refuses the clip, None if the metric is undefined for all."""
        quantity = self.worst_by
        if quantity is None:
            return None
        if any(row["n_frames"] is None for row in rows):
            return math.inf
        return max(
            (value for row in rows if (value := badness(row[quantity.name], quantity)) is not None), default=None
        )

    def _write_audio(
        self, clip: EvaluatedClip, measured: MeasuredClip, output: UnitOutput, unit: int, number: int
    ) -> None:
        """Write the original and the reconstructions of a clip."""
        for system, samples in {ORIGINAL: clip.samples[self.sample_rate], **measured.audio}.items():
            path = output.folder / audio_name(unit, number, system)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_audio(samples, self.sample_rate, "flac"))
