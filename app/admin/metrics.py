"""The metrics as JSON: the numbers of /metrics on the status listener, for programs that do not parse Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from math import isinf

import msgspec
from flask import Response
from pydantic import Field

from app.admin.api import Api, Model, json_response
from app.domain import metric_names
from app.domain.measures import HistogramView, Labels, Snapshot
from app.domain.tokens import Scope
from app.edge.metrics import gather
from app.edge.parts import EdgeParts
from app.outbound.worker_thread import WorkerThread


class Bucket(Model):
    """The number of observations up to a bound."""

    le: float | None = Field(description="The bound; null: infinite")
    count: int


class Sample(Model):
    """One series of a metric: a counter or gauge has `value`, a histogram `count`, `sum` and `buckets`."""

    labels: dict[str, str]
    value: float | None = None
    count: int | None = None
    sum: float | None = None
    buckets: list[Bucket] | None = None


class OneMetric(Model):
    """A metric with all its series."""

    name: str
    kind: str
    help: str
    samples: list[Sample]


class Metrics(Model):
    """Every metric of the edge."""

    items: list[OneMetric]


def add_routes(api: Api, edge: EdgeParts) -> None:
    """Add the routes of this subject."""
    thread = WorkerThread()  # ten thousand backends have a hundred thousand series

    @api.get("/api/metrics", Scope.READ, tag="metrics", response=Metrics)
    def list_metrics() -> Response:
        """List every metric with its series."""
        return json_response(thread.run(_render, *gather(edge)))


def _render(snapshot: Snapshot, gauges: Mapping[str, Mapping[Labels, float]]) -> bytes:
    return msgspec.json.encode({"items": [_described(metric, snapshot, gauges) for metric in metric_names.ALL]})


def _described(
    metric: metric_names.Metric, snapshot: Snapshot, gauges: Mapping[str, Mapping[Labels, float]]
) -> dict[str, object]:
    histograms = snapshot.histograms.get(metric.name, {})
    numbers = (gauges if metric.kind == metric_names.GAUGE else snapshot.counters).get(metric.name, {})
    samples = [{"labels": _named(metric, labels), "value": value} for labels, value in numbers.items()]
    samples += [{"labels": _named(metric, labels), **_observed(view)} for labels, view in histograms.items()]
    return {"name": metric.exposed_name, "kind": metric.kind, "help": metric.help, "samples": samples}


def _named(metric: metric_names.Metric, labels: Labels) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))


def _observed(view: HistogramView) -> dict[str, object]:
    buckets = [{"le": None if isinf(bound) else bound, "count": count} for bound, count in view.cumulative()]
    return {"count": view.count, "sum": view.total, "buckets": buckets}
