from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from runtime.metrics import Tallied, TalliedHistogram


def test_what_was_tallied_is_in_the_counter_whenever_it_is_read_and_once() -> None:
    registry = CollectorRegistry()
    one = Tallied("one", "One label.", ("a",), registry=registry)
    two = Tallied("two", "Two labels.", ("a", "b"), registry=registry)
    one.tally["x"] += 2
    one.labels("x").inc()
    two.tally["x", "y"] += 1
    for _ in range(2):
        assert registry.get_sample_value("one_total", {"a": "x"}) == 3
        assert registry.get_sample_value("two_total", {"a": "x", "b": "y"}) == 1
    one.tally["x"] += 1
    assert b'one_total{a="x"} 4.0' in generate_latest(registry)


def test_durations_are_in_the_histogram_as_if_each_had_been_observed() -> None:
    bounds = (0.001, 0.01, 0.1)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tallied = TalliedHistogram("one", "One.", ("a",), buckets=bounds, registry=ours)
    observed = Histogram("one", "One.", ("a",), buckets=bounds, registry=theirs)
    tallied.durations("never")
    observed.labels("never")
    for round_s in ((0.0, 0.001, 0.0011, 0.01), (0.05, 0.1, 0.10001, 7.0)):
        for seconds in round_s:
            tallied.durations("x").add(seconds)
            observed.labels("x").observe(seconds)
        for _ in range(2):
            assert _values(ours) == _values(theirs)


def _values(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
