"""All metrics by name, and their values for a pair."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from codectok.errors import InputError

from .base import Metric, Pair, UndefinedMetricError
from .computing import one_thread
from .conditions import check_pair
from .intelligibility import ExtendedStoi, Stoi
from .loudness import Loudness
from .multi_mel import MultiMel
from .opinion_scores import DistillMos, Dnsmos, Utmos
from .pitch import F0Error, VoicingError
from .signal import MelL1, SiSdr, StftDistance
from .speaker import SpeakerSimilarity
from .visqol_scores import VisqolAudio, VisqolSpeech
from .wide_band_pesq import Pesq
from .words import WordErrors

# A metric has the name of its first quantity.
METRICS: tuple[type[Metric], ...] = (
    MelL1, MultiMel, StftDistance, SiSdr, Loudness, F0Error, VoicingError,
    Stoi, ExtendedStoi, Pesq, VisqolAudio, VisqolSpeech, Dnsmos, DistillMos, Utmos, SpeakerSimilarity, WordErrors,
)  # fmt: skip
# Name of a distribution in a requirement.
_REQUIREMENT = re.compile(r"[\w.-]+")
# Of values: rounding errors in float64 depend on the alignment of memory.
DIGITS = 9
UTMOS, WORD_ERRORS = Utmos.quantities[0].name, WordErrors.quantities[0].name


def metrics(
    utmos: Path | None = None, recognizer: str | None = None, names: Sequence[str] | None = None
) -> list[Metric]:
    """Return metrics in the order of reports; their models are loaded when they are first used.

    Args:
        utmos: TorchScript file of UTMOS, which is measured only if there is one.
        recognizer: `module:callable` for word errors; None for pocketsphinx.
        names: of metrics or quantities, a quantity stands for its metric; None for all that are installed.

    Raises:
        InputError: a name is unknown, a named metric lacks its package or file, or the recognizer cannot be imported.
    """
    if utmos is not None and not utmos.is_file():
        raise InputError(f"The weights of UTMOS {utmos} do not exist; name a TorchScript file.")
    missing = missing_packages(recognizer)
    wanted = None if names is None else {_metric_name(name) for name in names}
    if wanted is not None:
        for name in sorted(wanted & missing.keys()):
            raise InputError(f"The metric {name} needs {missing[name]}; install it: pip install 'codectok[eval]'.")
        if UTMOS in wanted and utmos is None:
            raise InputError("The metric utmos needs your weights; name a TorchScript file of UTMOS.")
    found: list[Metric] = []
    for metric in METRICS:
        name = metric_name(metric)
        if name == UTMOS:
            if utmos is not None:
                found.append(Utmos(utmos))
        elif name not in missing and (wanted is None or name in wanted):
            found.append(WordErrors(recognizer) if name == WORD_ERRORS else metric())
    return found


def missing_packages(recognizer: str | None = None) -> Mapping[str, str]:
    """Return the distributions that metrics lack, by the names of the metrics.

    Args:
        recognizer: the user's, which replaces pocketsphinx.
    """
    missing: dict[str, str] = {}
    for metric in METRICS:
        name = metric_name(metric)
        modules = dict(metric.packages)
        if name == WORD_ERRORS and recognizer is not None:
            modules.pop("pocketsphinx")
        lacking = [package for module, package in modules.items() if find_spec(module) is None]
        if lacking:
            missing[name] = ", ".join(lacking)
    return missing


def measure_pair(chosen: Iterable[Metric], pair: Pair) -> tuple[dict[str, float | None], dict[str, str]]:
    """Measure a pair, with values of 9 digits.

    Returns:
        The value of each quantity, None if it is undefined, and the reasons of the undefined ones; both by name.
    """
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for metric in chosen:
        names = [quantity.name for quantity in metric.quantities]
        try:
            check_pair(pair)
            with one_thread():
                measured = metric.measure(pair)
        except UndefinedMetricError as error:
            values |= dict.fromkeys(names)
            reasons |= dict.fromkeys(names, str(error))
            continue
        for name in names:
            finite = math.isfinite(measured[name])
            values[name] = float(f"{measured[name]:.{DIGITS}g}") if finite else None
            if not finite:
                reasons[name] = "the result is not finite"
    return values, reasons


def installed_versions(metric: Metric) -> dict[str, str]:
    """Return the versions of the distributions that a metric uses, by name."""
    found = (_distribution(module, package) for module, package in metric.packages.items() if find_spec(module))
    return {name: version(name) for name in sorted(filter(None, found))}


def _distribution(module: str, package: str) -> str | None:
    """Return the distribution that holds a module; None for a module that was not installed as part of one."""
    wanted = _REQUIREMENT.match(package)
    assert wanted is not None, "packages begin with a name"
    with suppress(PackageNotFoundError):
        version(wanted[0])
        return wanted[0]
    # Another distribution with the same module, such as onnxruntime-gpu.
    return next(iter(packages_distributions().get(module, [])), None)


def metric_name(metric: Metric | type[Metric]) -> str:
    """Return the name of a metric, that of its first quantity."""
    return metric.quantities[0].name


def _metric_name(name: str) -> str:
    for metric in METRICS:
        if name in (quantity.name for quantity in metric.quantities):
            return metric_name(metric)
    known = ", ".join(metric_name(metric) for metric in METRICS)
    raise InputError(f"There is no metric {name}; known are {known}.")
