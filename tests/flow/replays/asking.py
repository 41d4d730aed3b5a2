"""Asking for replays, and looking at what came of them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import httpx
from confluent_kafka import Consumer, TopicPartition
from typer.testing import CliRunner

from schemas.topics import DELIVERY_GROUP, EVENTS_ACCEPTED
from triggers.cli import app
from triggers.receiver import Received, Receiver
from triggers.system import System, until

WAIT_S = 40.0
MARK = "x-triggers-delivery"


def run(system: System, *arguments: str, status: int = 0) -> Any:
    finished = CliRunner().invoke(app, ["replay", *arguments, "--json"], env=dict(system.environment))
    assert finished.exit_code == status, finished.output
    return json.loads(finished.stdout) if status == 0 else finished.stderr


def post(client: httpx.Client, *types: str) -> list[str]:
    answer = client.post("/events/batch", json=[{"type": kind, "payload": {"n": n}} for n, kind in enumerate(types)])
    assert answer.status_code < 300, answer.text
    return [one["event"]["id"] for one in answer.json()["results"]]


def replayed(receiver: Receiver, path: str = "/webhooks") -> list[Received]:
    return [one for one in receiver.of(path) if one.headers.get(MARK) == "replay"]


def ids_of(received: list[Received]) -> Counter[str]:
    return Counter(one.headers["webhook-id"] for one in received)


def arrived(receiver: Receiver, events: list[str], path: str = "/webhooks") -> None:
    """As they came, before any replay."""
    until(lambda: set(events) <= {one.headers["webhook-id"] for one in receiver.of(path)}, WAIT_S, "the events arriving", 0.1)


def start(desk: httpx.Client, status: int = 202, **body: Any) -> dict[str, Any]:
    answer = desk.post("/replays", json=body)
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    return document


def steer(desk: httpx.Client, replay: str, status: int = 200, **body: Any) -> dict[str, Any]:
    answer = desk.patch(f"/replays/{replay}", json=body)
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    return document


def parts(desk: httpx.Client, replay: str) -> list[str]:
    return [one["state"] for one in desk.get(f"/replays/{replay}").json()["endpoints"]]


def committed(system: System) -> list[int]:
    """The live group's place among accepted events, partition by partition."""
    consumer = Consumer({"bootstrap.servers": system.settings.kafka.bootstrap_servers, "group.id": DELIVERY_GROUP})
    try:
        places = [TopicPartition(EVENTS_ACCEPTED, number) for number in range(system.settings.kafka.partitions)]
        return [place.offset for place in consumer.committed(places, timeout=20)]
    finally:
        consumer.close()
