"""Formats a snapshot in the Prometheus text format. It counts nothing itself: the metrics actor does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from app.domain import metric_names
from app.domain.measures import HistogramView, Labels, Snapshot

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

Gauges = Mapping[str, Mapping[Labels, float]]


class PrometheusText:
    """Renders metrics; `gather` returns the actors' snapshot and the gauges read at that moment."""

    def __init__(self, gather: Callable[[], tuple[Snapshot, Gauges]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_SnapshotCollector(gather))
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=self._registry)

    def render(self) -> bytes:
        return generate_latest(self._registry)


class _SnapshotCollector(Collector):
    def __init__(self, gather: Callable[[], tuple[Snapshot, Gauges]]) -> None:
        self._gather = gather

    def describe(self) -> Iterable[Metric]:
        return []  # registering must not gather

    def collect(self) -> Iterable[Metric]:
        snapshot, gauges = self._gather()
        for metric in metric_names.ALL:
            if metric.kind == metric_names.COUNTER:
                yield _counter(metric, snapshot.counters.get(metric.name, {}))
            elif metric.kind == metric_names.GAUGE:
                yield _gauge(metric, gauges.get(metric.name, {}))
            else:
                yield _histogram(metric, snapshot.histograms.get(metric.name, {}))


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
        buckets = [(str(bound), float(count)) for bound, count in view.buckets]
        family.add_metric(labels, [*buckets, ("+Inf", float(view.count))], sum_value=view.total)
    return family
