"""What the receiver counts, by the official client of Prometheus; and what its controller tells, in the same page."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from webhooks.messages import Standing, What

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Measures:
    """Labels are names from the configuration and words of ours: nothing a sender writes becomes one."""

    def __init__(self, standings: Callable[[], Iterable[Standing]]) -> None:
        """`standings`: what the controller told last."""
        self._registry = CollectorRegistry()
        self._deliveries = Counter(
            "dstack_webhook_deliveries",
            "Deliveries, by repository, forge, and what became of them.",
            ("repository", "forge", "result"),
            registry=self._registry,
        )
        self._wakes = Counter(
            "dstack_webhook_wakes",
            "Times the controller was woken, by repository, and by what may have changed.",
            ("repository", "what"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "dstack_webhook_seconds",
            "From the end of a delivery's headers to its answer.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self.waiting = Gauge("dstack_wake_polls_open", "Long-polls that wait now.", registry=self._registry)
        self._registry.register(_Told(standings))
        self._known: dict[tuple[str, str, str], Counter] = {}

    def delivered(self, repository: str, forge: str, result: str, seconds: float) -> None:
        """One was answered."""
        key = (repository, forge, result)
        counter = self._known.get(key)
        if counter is None:
            counter = self._known[key] = self._deliveries.labels(*key)
        counter.inc()
        self._seconds.observe(seconds)

    def woken(self, repository: str, what: What) -> None:
        """The controller was told."""
        self._wakes.labels(repository, what.value).inc()

    def page(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class _Told(Collector):
    """What the controller counts."""

    def __init__(self, standings: Callable[[], Iterable[Standing]]) -> None:
        self._standings = standings

    def collect(self) -> Iterator[Metric]:
        """As of the last answer."""
        labels = ("repository",)
        turns = CounterMetricFamily("dstack_controller_turns", "Turns of the controller.", labels=labels)
        pushes = CounterMetricFamily("dstack_controller_pushes", "Pushes of the controller.", labels=labels)
        failures = CounterMetricFamily("dstack_controller_poll_failures", "Polls that failed.", labels=labels)
        runs = GaugeMetricFamily("dstack_controller_runs", "Runs that aren't archived.", labels=labels)
        polled = GaugeMetricFamily(
            "dstack_controller_polled_seconds", "Seconds since the last poll that succeeded.", labels=labels
        )
        for one in self._standings():
            turns.add_metric([one.name], one.turns)
            pushes.add_metric([one.name], one.pushes)
            failures.add_metric([one.name], one.failures)
            runs.add_metric([one.name], one.runs)
            if one.polled is not None:
                polled.add_metric([one.name], one.polled)
        yield from (turns, pushes, failures, runs, polled)
