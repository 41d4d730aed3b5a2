from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from runtime.metrics import Tallied


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
