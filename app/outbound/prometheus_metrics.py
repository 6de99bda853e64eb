"""Formats a snapshot of the metrics actor in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app.domain import metric_names
from app.domain.measures import HistogramView, Labels, Snapshot

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

Gauges = Mapping[str, Mapping[Labels, float]]


class PrometheusText:
    """Renders metrics: counters of the actors, current gauges, and metrics of the process."""

    def __init__(self) -> None:
        self._process = CollectorRegistry()
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=self._process)

    def render(self, snapshot: Snapshot, gauges: Gauges) -> bytes:
        """Return the exposition. Takes 1 s for 10,000 backends, so call it off the event loop."""
        registry = CollectorRegistry()
        registry.register(_Families(snapshot, gauges))
        return generate_latest(registry) + generate_latest(self._process)


class _Families(Collector):
    def __init__(self, snapshot: Snapshot, gauges: Gauges) -> None:
        self._snapshot = snapshot
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        for metric in metric_names.ALL:
            if metric.kind == metric_names.COUNTER:
                yield _counter(metric, self._snapshot.counters.get(metric.name, {}))
            elif metric.kind == metric_names.GAUGE:
                yield _gauge(metric, self._gauges.get(metric.name, {}))
            else:
                yield _histogram(metric, self._snapshot.histograms.get(metric.name, {}))


def _counter(metric: metric_names.Metric, series: Mapping[Labels, float]) -> Metric:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in (series or ({} if metric.labels else {(): 0.0})).items():
        family.add_metric(labels, value)
    return family


def _gauge(metric: metric_names.Metric, series: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in series.items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: metric_names.Metric, series: Mapping[Labels, HistogramView]) -> Metric:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, view in series.items():
        buckets = [(str(floatToGoString(bound)), float(count)) for bound, count in view.cumulative()]
        family.add_metric(labels, buckets, sum_value=view.total)
    return family
