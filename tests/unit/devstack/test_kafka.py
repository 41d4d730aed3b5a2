from __future__ import annotations

import struct
from pathlib import Path

import pytest

from triggers.devstack import kafka_probe
from triggers.devstack.kafka import Kafka, new_cluster_id, render_properties, settings
from triggers.devstack.server import ServerError


def test_properties_are_escaped_as_java_reads_them() -> None:
    assert render_properties({"log.dirs": "/tmp/ü \\ 𝄞"}) == "log.dirs=/tmp/\\u00fc \\\\ \\ud834\\udd1e\n"


def test_the_broker_keeps_everything_and_makes_no_topic_by_itself() -> None:
    made = settings(Path("/d"), port=1, controller_port=2)
    assert made["auto.create.topics.enable"] == "false"
    assert made["log.retention.ms"] == "-1"
    assert made["offsets.retention.minutes"] == "525600"


def test_the_broker_is_reached_on_loopback_only() -> None:
    made = settings(Path("/d"), port=1, controller_port=2)
    assert made["listeners"] == "PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2"
    assert made["advertised.listeners"] == "PLAINTEXT://127.0.0.1:1"


def test_cluster_ids_are_ids_of_kafka() -> None:
    made = {new_cluster_id() for _ in range(100)}
    assert len(made) == 100
    assert all(len(one) == 22 and not one.startswith("-") for one in made)


def test_a_folder_kafka_would_split_is_refused(tmp_path: Path) -> None:
    kafka = Kafka(tmp_path / "a,b", port=1, controller_port=2, cache_dir=tmp_path, progress=print)
    with pytest.raises(ServerError, match="comma"):
        kafka.write_properties()


def test_a_probe_request_is_framed_as_the_protocol_says() -> None:
    asked = kafka_probe.find_coordinator()
    size, key, version, correlation = struct.unpack_from(">ihhi", asked)
    assert (size, key, version, correlation) == (len(asked) - 4, 10, 1, 1)
    assert asked.endswith(b"\x00\x0edevstack-ready\x00")


def test_a_probe_says_why_not() -> None:
    assert kafka_probe.explain(0) is None
    assert kafka_probe.explain(15) == "no group coordinator yet"
    assert kafka_probe.explain(99) == "error 99"
