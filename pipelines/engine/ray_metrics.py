"""Passes the metrics of a job on to Ray, whose machines serve them to Prometheus.

Ray adds the prefix `ray_` to their names. A machine serves metrics only if the packages of `ray[default]` are installed
there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from codectok.errors import InputError
from codectok.monitoring.series import MetricValues, Series
from codectok.names import writable

PORT_VARIABLE = "CODECTOK_METRICS_PORT"
# Modules of `ray[default]` without which Ray serves no metrics.
NEEDED_MODULES = ("opencensus", "opentelemetry.exporter.prometheus", "prometheus_client", "aiohttp", "aiohttp_cors")


def metrics_port() -> int | None:
    """Port on which a Ray started for a job serves metrics, from the environment; None to let Ray choose one.

    Raises:
        InputError: the variable is not a port.
    """
    text = os.environ.get(PORT_VARIABLE)
    if not text:
        return None
    if not (text.isdecimal() and 0 < int(text) < 1 << 16):
        raise InputError(f"{PORT_VARIABLE} is a port from 1 to 65535, not {text!r}.")
    return int(text)


def serve_metrics(values: MetricValues, on_note: Callable[[str], None]) -> list[str]:
    """Pass `values` and all later changes on to Ray if this process is connected to one.

    Returns:
        The addresses at which machines of the cluster serve metrics; empty without Ray, or without its packages here.
    """
    if "ray" not in sys.modules:
        return []
    import ray

    if not ray.is_initialized():
        return []
    values.attach(_RayMetrics())
    if not is_served_here():
        if metrics_port() is not None:
            on_note(f"{PORT_VARIABLE} has no effect: Ray serves metrics only with: pip install 'ray[default]'.")
        return []
    ask: Any = ray.nodes
    return [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in ask()
        if node["Alive"] and node["MetricsExportPort"]
    ]


def is_served_here() -> bool:
    """True if a Ray of this environment serves metrics."""
    try:
        return all(find_spec(name) is not None for name in NEEDED_MODULES)
    except ModuleNotFoundError:  # the parent of a module is missing
        return False


class _RayMetrics:
    """Metrics of `ray.util.metrics`, made when they are first used; does nothing once Ray has ended."""

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {}

    def add(self, series: Series, amount: float, tags: Mapping[str, str]) -> None:
        """Increase a counter."""
        if self._is_connected():
            self._metric(series).inc(amount, _texts(tags))

    def set(self, series: Series, value: float, tags: Mapping[str, str]) -> None:
        """Set a gauge."""
        if self._is_connected():
            self._metric(series).set(value, _texts(tags))

    def observe(self, series: Series, value: float, tags: Mapping[str, str]) -> None:
        """Add a value to a histogram."""
        if self._is_connected():
            self._metric(series).observe(value, _texts(tags))

    @staticmethod
    def _is_connected() -> bool:
        import ray

        return ray.is_initialized()

    def _metric(self, series: Series) -> Any:
        from ray.util import metrics

        found = self._metrics.get(series.name)
        if found is None:
            # Ray adds the suffix of counters.
            name = series.full_name.removesuffix("_total") if series.kind == "counter" else series.full_name
            common: dict[str, Any] = {"description": series.help, "tag_keys": series.tag_keys}
            if series.kind == "counter":
                found = metrics.Counter(name, **common)
            elif series.kind == "gauge":
                found = metrics.Gauge(name, **common)
            else:
                found = metrics.Histogram(name, boundaries=[*series.bounds], **common)
            self._metrics[series.name] = found
        return found


def _texts(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: writable(value) for name, value in tags.items()}
