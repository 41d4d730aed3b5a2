"""The catalogue of metrics: every name any process exports, with its unit and labels. Labels never hold an organization or a secret.

Each process serves the whole catalogue; what it does not do stays at zero. Histograms are in seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram, Metric, start_http_server

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Tally(defaultdict[str | tuple[str, ...], int]):
    """What the event loop counts of one counter, by label or labels: `tally[label] += 1`. Added to the counter when that is read.

    A counter's own `inc` is a lock and four calls, and an event counts in six of them. For one thread, which reads it too.
    """

    def __init__(self) -> None:
        super().__init__(int)

    def take(self) -> Sequence[tuple[tuple[str, ...], int]]:
        """What was counted since the last time."""
        counted = [((labels,) if isinstance(labels, str) else labels, amount) for labels, amount in self.items()]
        self.clear()
        return counted


class Tallied(Counter):
    """A counter that is counted in its `tally` as well."""

    def __init__(self, name: str, documentation: str, labelnames: Sequence[str] = (), **more: Any) -> None:
        self.tally = Tally()
        super().__init__(name, documentation, labelnames, **more)

    def collect(self) -> Iterable[Metric]:
        for labels, amount in self.tally.take():
            self.labels(*labels).inc(amount)
        return super().collect()


class Durations:
    """Those of one label of a histogram, counted by the event loop: one call where `observe` is five and two locks."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._clear()

    def _clear(self) -> None:
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum_s += seconds

    def take(self) -> tuple[Sequence[int], float]:
        """(how many in each bucket, the last one without a bound; their sum), since the last time."""
        counted = self._counts, self._sum_s
        self._clear()
        return counted


class TalliedHistogram(Histogram):
    """A histogram of one label that is counted in its `durations` as well, for one thread, which reads it too."""

    def __init__(self, name: str, documentation: str, labelnames: Sequence[str], *, buckets: Sequence[float], **more: Any) -> None:
        self._bounds = buckets
        self._tallied: dict[str, Durations] = {}
        super().__init__(name, documentation, labelnames, buckets=buckets, **more)

    def durations(self, label: str) -> Durations:
        return self._tallied.setdefault(label, Durations(self._bounds))

    def collect(self) -> Iterable[Metric]:
        for label, durations in self._tallied.items():
            child: Any = self.labels(label)
            counts, sum_s = durations.take()
            for bucket, count in zip(child._buckets, counts, strict=True):
                bucket.inc(count)
            child._sum.inc(sum_s)
        return super().collect()


# Ingest
REQUESTS: Final = Tallied("triggers_http_requests", "HTTP requests answered.", ("route", "status"))
REQUEST_SECONDS: Final = TalliedHistogram("triggers_http_request_seconds", "From the first byte to the answer.", ("route",), buckets=_FAST)
HTTP_REFUSED: Final = Counter("triggers_http_refused", "Requests and connections refused before a route saw them.", ("problem",))
APPENDS: Final = Tallied("triggers_appends", "Appends to events.ingested by outcome.", ("outcome",))
KEY_LOOKUPS: Final = Tallied("triggers_key_lookups", "API key look-ups by where they were answered.", ("source",))
QUOTA_EVENTS: Final = Tallied("triggers_quota_events", "Events counted against a quota by outcome.", ("outcome",))
KEYS_REFUSED: Final = Counter("triggers_keys_refused", "API keys and operators' tokens that were not let in.", ("reason",))
SCHEMA_LOADS: Final = Counter("triggers_schema_loads", "Reads of event type schemas from Postgres by what was read.", ("what",))
SCHEMA_CHECKS: Final = Counter("triggers_schema_checks", "Payloads checked against the schema of their type by outcome.", ("outcome",))
RESERVATIONS: Final = Tallied("triggers_reservations", "Idempotency reservations by outcome.", ("outcome",))
REDIS_ROUND_TRIPS: Final = Tallied("triggers_redis_round_trips", "Redis round trips by outcome.", ("outcome",))

# Kafka producer of any process
PRODUCED: Final = Counter("triggers_produced_records", "Records confirmed by the broker.", ("topic",))
PRODUCE_FAILURES: Final = Counter("triggers_produce_failures", "Records whose delivery report was an error.", ("topic",))

# Processors
DEDUP_DECISIONS: Final = Counter("triggers_dedup_decisions", "Ingested records by what dedup made of them.", ("decision",))
REJECTED: Final = Counter("triggers_rejected_records", "Records parked in events.rejected.", ("topic", "reason"))
FOLDED: Final = Counter("triggers_folded_records", "Records folded into Postgres.", ("topic",))
FOLD_SECONDS: Final = Histogram("triggers_fold_seconds", "One fold transaction.", ("topic",), buckets=_FAST)
FOLD_LAG_SECONDS: Final = Gauge("triggers_fold_lag_seconds", "Age of the last record folded when it was folded.", ("topic",))
RECOVERED: Final = Counter("triggers_recovered_markers", "Changelog records applied to the dedup table at start.")
COMMITS: Final = Counter("triggers_commits", "Offset commits by outcome.", ("group", "outcome"))

# Delivery
ATTEMPTS: Final = Counter("triggers_delivery_attempts", "Webhook attempts by outcome and error class.", ("outcome", "error"))
ATTEMPT_SECONDS: Final = Histogram("triggers_delivery_attempt_seconds", "One webhook attempt.", buckets=_SLOW)
RETRIES_SCHEDULED: Final = Counter("triggers_delivery_retries_scheduled", "Retries written to a delay topic.", ("delay",))
DEAD_LETTERS: Final = Counter("triggers_delivery_dead_letters", "Deliveries given up.", ("reason",))
PARKED: Final = Counter("triggers_delivery_parked", "Deliveries put off without spending an attempt.", ("reason",))
REDELIVERIES: Final = Counter("triggers_delivery_requested", "Rounds of deliveries that were asked for.", ("cause",))
REPLAY_PAGES: Final = Counter("triggers_delivery_replay_pages", "Pages of replays that were worked off.")
HELD: Final = Counter("triggers_delivery_held", "Deliveries not made because the endpoint is disabled.")
BREAKERS: Final = Counter("triggers_delivery_breakers", "Circuit breakers of endpoints that opened and closed.", ("change",))
ENDPOINT_CHANGES: Final = Counter("triggers_delivery_endpoint_changes", "Endpoints that fail, are disabled, have recovered.", ("change",))
FIFO_ENDPOINTS: Final = Gauge(
    "triggers_delivery_fifo_endpoints", "FIFO endpoints by state: idle, busy, waiting, blocked, disabled.", ("partition", "state")
)
FIFO_LAG_SECONDS: Final = Gauge(
    "triggers_delivery_fifo_lag_seconds", "Age of the oldest event that a FIFO endpoint is at; 0 where none has any.", ("partition",)
)
IN_FLIGHT: Final = Gauge("triggers_delivery_in_flight", "Webhook attempts under way.")


def serve(port: int, host: str = "127.0.0.1") -> int:
    """Serve /metrics of this process; returns the port taken (0 asks for a free one). Raises `OSError` if the port is taken."""
    server, _thread = start_http_server(port, addr=host)
    return int(server.server_port)
