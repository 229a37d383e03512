"""Writes numbers as Prometheus reads them; its own library words them, and adds what it knows of the process."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from listener.telemetry import catalogue
from listener.telemetry.counts import Buckets, Labels, Numbers


def render(numbers: Numbers, accept: str) -> tuple[str, bytes]:
    """The content type that suits whoever asks, and the page. Takes some milliseconds: not for the event loop."""
    registry = CollectorRegistry()
    registry.register(_Page(numbers))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


class _Page:
    """What the library collects."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """The metrics in their order; one without any number is left out."""
        for metric, series in self._numbers.values.items():
            if series:
                yield _simple(metric, series)
        for metric, parts in self._numbers.histograms.items():
            if parts:
                yield _histogram(metric, parts)


def _simple(metric: catalogue.Metric, series: dict[Labels, float]) -> Metric:
    is_counter = metric.kind is catalogue.Kind.COUNTER
    family = (CounterMetricFamily if is_counter else GaugeMetricFamily)(
        metric.name, metric.help, labels=metric.labels
    )
    for labels, value in series.items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: catalogue.Metric, series: dict[Labels, Buckets]) -> Metric:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    bounds = [*(f"{bound:g}" for bound in metric.bounds), "+Inf"]
    for labels, buckets in series.items():
        family.add_metric(labels, list(zip(bounds, accumulate(buckets.counts), strict=True)), buckets.sum)
    return family
