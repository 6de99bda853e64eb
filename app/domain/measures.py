"""Counters and histograms by metric name and label values. The metrics actor owns them; exporters format them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import Final

RTT_BUCKETS_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

Labels = tuple[str, ...]


class Histogram:
    """Observations in buckets. `counts` are per bucket, not cumulative; the last bucket has no upper bound."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(RTT_BUCKETS_SECONDS) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(RTT_BUCKETS_SECONDS, value)] += 1
        self.total += value

    def add(self, observed: HistogramView) -> None:
        self.counts = [mine + others for mine, others in zip(self.counts, observed.counts, strict=True)]
        self.total += observed.total

    def view(self) -> HistogramView:
        return HistogramView(tuple(self.counts), self.total)


@dataclass(frozen=True, slots=True)
class HistogramView:
    """A copy of one histogram: the count per bucket, the last one without an upper bound, and the sum."""

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return pairs of an upper bound and the count up to it; the last bound is infinite."""
        return list(zip((*RTT_BUCKETS_SECONDS, inf), accumulate(self.counts), strict=True))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of all counters and histograms, by metric name and label values."""

    counters: Mapping[str, Mapping[Labels, float]]
    histograms: Mapping[str, Mapping[Labels, HistogramView]]


class Measures:
    """Stores the metrics. A series exists from its first count on; each metric has a fixed order of labels."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}

    def count(self, metric: str, labels: Labels = (), amount: float = 1.0) -> None:
        series = self._counters.setdefault(metric, {})
        series[labels] = series.get(labels, 0.0) + amount

    def observe(self, metric: str, labels: Labels, value: float) -> None:
        series = self._histograms.setdefault(metric, {})
        histogram = series.get(labels)
        if histogram is None:
            histogram = series[labels] = Histogram()
        histogram.observe(value)

    def add(self, metric: str, labels: Labels, observed: HistogramView) -> None:
        """Add observations made elsewhere to a histogram."""
        self._histograms.setdefault(metric, {}).setdefault(labels, Histogram()).add(observed)

    def keep_only(self, metric: str, position: int | slice, remaining: Collection[object]) -> None:
        """Drop the series of a metric whose label (or labels) at `position` are not in `remaining`."""
        for series in (self._counters.get(metric), self._histograms.get(metric)):
            for labels in [labels for labels in series or () if labels[position] not in remaining]:
                del series[labels]  # type: ignore[union-attr]

    def read(self, metrics: Iterable[str]) -> dict[str, dict[Labels, float]]:
        """Copy these counters only; a counter that has no series yet is empty."""
        return {metric: dict(self._counters.get(metric, ())) for metric in metrics}

    def snapshot(self) -> Snapshot:
        return Snapshot(
            counters={metric: dict(series) for metric, series in self._counters.items()},
            histograms={
                metric: {labels: histogram.view() for labels, histogram in series.items()}
                for metric, series in self._histograms.items()
            },
        )
