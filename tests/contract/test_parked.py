"""Dead letters and rejected records as operators see them: found by what they are, shown whole and harmless, dropped without being lost."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer
from msgspec import Raw
from typer.testing import CliRunner, Result

from access import audit
from projections.letters import Wanted, letters
from runtime.postgres import connect
from runtime.settings import Settings
from schemas import codec, ids, keys
from schemas.codec import CodecError, rejected_headers
from schemas.deliveries import DeadLetter, PastAttempt
from schemas.ids import OrganizationId
from schemas.topics import DELIVERIES_DEAD, EVENTS_INGESTED, EVENTS_REJECTED
from tests.flow.topics import read_topic
from triggers.cli import app
from triggers.devstack.ports import free_ports
from triggers.provision import make_tenant

Run = Callable[..., Result]
AWAY = {"TRIGGERS_POSTGRES__DSN": f"postgresql://u@127.0.0.1:{free_ports(1)[0]}/x"}
GOOD, OTHER = (ids.endpoint_id(number, b"endpoints.") for number in (1, 2))
EVENTS = [ids.event_id(1_800_000_000_000 + number, b"0123456789") for number in range(4)]


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run(*arguments: str, **more: str) -> Result:
        return CliRunner().invoke(app, arguments, env={**environment, **more})

    return run


@pytest.fixture
def organization(settings: Settings) -> OrganizationId:
    return make_tenant(settings, "parked").organization


def produce(settings: Settings, topic: str, key: bytes | None, value: bytes | None, headers: Any = ()) -> str:
    """One record into the partition of its key; its place."""
    partition = keys.partition_of(key or b"", settings.kafka.partitions)
    placed: list[str] = []
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    producer.produce(
        topic, value, key, partition, headers=list(headers),
        on_delivery=lambda _, message: placed.append(f"{message.partition()}@{message.offset()}"),
    )  # fmt: skip
    assert producer.flush(20) == 0
    return placed[0]


def letter(organization: OrganizationId, number: int, **changed: Any) -> bytes:
    members: dict[str, Any] = {
        "v": 1, "organization": organization, "mode": "live", "event_id": EVENTS[number], "endpoint_id": GOOD, "reason": "exhausted",
        "dead_at_ms": 1_700_000_000_000 + 1_000 * number,
        "history": [PastAttempt(attempt=1, started_at_ms=5, status=500), PastAttempt(attempt=2, started_at_ms=9, error="timeout")],
        "event": Raw(b'{"type":"order.paid","payload":"\xc3\xa9 \\u001b[31m"}'),
    }  # fmt: skip
    return codec.encode(DeadLetter(**{**members, **changed}))


def listed(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, (result.stderr, result.exception)
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_dead_letters_are_found_by_each_filter_without_postgres(run: Run, settings: Settings, organization: OrganizationId) -> None:
    key = organization.encode()
    places = [
        produce(settings, DELIVERIES_DEAD, key, letter(organization, 0)),
        produce(settings, DELIVERIES_DEAD, key, letter(organization, 1, endpoint_id=OTHER)),
        produce(settings, DELIVERIES_DEAD, key, letter(organization, 2, reason="gone", mode="test")),
        produce(settings, DELIVERIES_DEAD, key, letter(organization, 3, event=Raw(b'{"type":"user.made"}'))),
    ]
    poison = produce(settings, DELIVERIES_DEAD, key, b"poison")

    def found(*filters: str) -> list[str]:
        result = run("dead", "list", "--organization", organization, "--json", *filters, **AWAY)
        assert f"deliveries.dead[{poison.replace('@', ']@')} is no dead letter: malformed" in result.stderr
        return [one["place"] for one in listed(result)]

    assert found() == places
    assert found("--endpoint", OTHER) == [places[1]]
    assert found("--reason", "gone") == [places[2]]
    assert found("--type", "user.made") == [places[3]]
    assert found("--event", EVENTS[0]) == [places[0]]
    assert found("--until", "2023-11-14T22:13:21Z") == places[:1]
    limited = run("dead", "list", "--organization", organization, "--json", "--limit", "2")
    assert [one["place"] for one in listed(limited)] == places[:2]
    assert "there are more than 2" in limited.stderr
    assert [one["place"] for one in listed(run("dead", "list", "--json"))].count(places[0]) == 1, "without an organization all are read"
    # Appended just now, given up in 2023: the filter is the time of giving up, the topic is entered at the record's.
    assert found("--since", "2023-11-14T22:13:22Z") == places[2:]


def test_a_dead_letter_is_shown_whole_and_its_bytes_do_nothing_to_a_terminal(
    run: Run, settings: Settings, organization: OrganizationId
) -> None:
    place = produce(settings, DELIVERIES_DEAD, organization.encode(), letter(organization, 0))
    people = run("dead", "show", place, **AWAY)
    assert people.exit_code == 0, people.stderr
    assert people.stdout.isascii() and people.stdout.replace("\n", "").isprintable()
    assert r'"payload":"\xc3\xa9 \\u001b[31m"' in people.stdout
    assert people.stdout.splitlines()[-1].split()[0] == "2"
    made = json.loads(run("dead", "show", f"deliveries.dead[{place.replace('@', ']@')}", "--json", **AWAY).stdout)
    assert base64.b64decode(made["event_base64"]) == b'{"type":"order.paid","payload":"\xc3\xa9 \\u001b[31m"}'
    assert [(one["attempt"], one["status"], one["error"]) for one in made["history"]] == [(1, 500, None), (2, None, "timeout")]


def test_a_drop_hides_the_letter_from_lists_and_loses_nothing(run: Run, settings: Settings, organization: OrganizationId) -> None:
    places = [produce(settings, DELIVERIES_DEAD, organization.encode(), letter(organization, number)) for number in (0, 1)]
    before = read_topic(settings, DELIVERIES_DEAD)
    refused = run("dead", "drop", places[0], **AWAY)
    assert (refused.exit_code, "PostgreSQL refused" in refused.stderr) == (1, True)

    def left(*options: str) -> list[dict[str, Any]]:
        return listed(run("dead", "list", "--organization", organization, "--json", *options, **AWAY))

    assert [one["place"] for one in left()] == places, "what could not be audited was dropped"
    for when in ("now", "before"):
        assert json.loads(run("dead", "drop", places[0], "--why", "the shop\x1b closed", "--json").stdout)[0]["dropped"] == when
    assert [one["place"] for one in left()] == places[1:]
    assert [one["place"] for one in left("--dropped") if one["dropped"]] == places[:1]
    assert read_topic(settings, DELIVERIES_DEAD) == before
    shown = json.loads(run("dead", "show", places[0], "--json", **AWAY).stdout)
    assert (shown["dropped"]["why"], len(shown["history"])) == ("the shop\x1b closed", 2)
    assert shown["dropped"]["actor"].startswith("cli:")
    with connect(settings.postgres, application="test") as connection:
        entries = audit.page(connection, organization, before=1 << 62, limit=10)
    dropped = [one for one in entries if one.action == "record.dropped"]
    assert [(one.target, one.detail) for one in dropped] == [
        (f"deliveries.dead[{places[0].replace('@', ']@')}", {"why": "the shop\x1b closed"})
    ]


def test_one_place_that_is_wrong_drops_none_of_the_others(run: Run, settings: Settings, organization: OrganizationId) -> None:
    place = produce(settings, DELIVERIES_DEAD, organization.encode(), letter(organization, 0))
    for wrong, why in (
        ("0@99999999", "is not there"),
        ("99@0", "no partition 99"),
        ("x", "is no place"),
        ("events.rejected[0]@0", "is no place"),
    ):
        result = run("dead", "drop", place, wrong)
        assert result.exit_code == 1
        assert why in result.stderr
    assert [one["dropped"] for one in listed(run("dead", "list", "--organization", organization, "--json"))] == [None]


def test_rejected_records_are_found_shown_and_dropped_whatever_is_in_them(
    run: Run, settings: Settings, organization: OrganizationId
) -> None:
    raw = b"\x00\xff\x1b]0;owned\x07\n" + bytes(range(256)) * 40
    error = CodecError("malformed", "it is \x1b[2J not JSON")
    headers = [("event-id", EVENTS[0].encode()), ("odd\x1b", None), *rejected_headers(EVENTS_INGESTED, 3, 41, error)]
    place = produce(settings, EVENTS_REJECTED, organization.encode(), raw, headers)
    strange = produce(settings, EVENTS_REJECTED, None, None, [("rejected-offset", b"\xb2"), ("rejected-topic", b"\xff")])

    def found(*filters: str) -> list[str]:
        return [one["place"] for one in listed(run("rejected", "list", "--json", *filters, **AWAY))]

    assert {place, strange} <= set(found())
    assert found("--organization", organization) == found("--organization", organization, "--reason", "malformed") == [place]
    assert found("--organization", organization, "--topic", EVENTS_INGESTED, "--since", "1h", "--event", EVENTS[0]) == [place]
    assert found("--organization", organization, "--reason", "tombstone") == []
    for shown in (run("rejected", "show", place, **AWAY), run("rejected", "show", strange, **AWAY), run("rejected", "list", **AWAY)):
        assert shown.exit_code == 0, shown.stderr
        assert shown.stdout.isascii() and shown.stdout.replace("\n", "").isprintable()
    assert "events.ingested[3]@41" in run("rejected", "show", place).stdout
    made = json.loads(run("rejected", "show", place, "--json", **AWAY).stdout)
    assert base64.b64decode(made["value_base64"]) == raw
    assert json.loads(run("rejected", "drop", place, strange, "--json").stdout)[1]["dropped"] == "now"
    assert not {place, strange} & set(found())
    assert {place, strange} <= set(found("--dropped"))


def test_a_range_above_the_limit_of_records_is_refused_before_it_is_read(
    run: Run, settings: Settings, organization: OrganizationId
) -> None:
    for number in (0, 1):
        produce(settings, DELIVERIES_DEAD, organization.encode(), letter(organization, number))
    result = run("dead", "list", TRIGGERS_OPERATING__READ_RECORDS_MAX="1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "raise that" in result.stderr


def test_the_selection_of_letters_is_there_for_others(settings: Settings, organization: OrganizationId) -> None:
    produce(settings, DELIVERIES_DEAD, organization.encode(), letter(organization, 0), [("traceparent", b"00-a")])
    (one,) = letters(settings, Wanted(organization=organization), unreadable=lambda *_: None, progress=lambda *_: None)
    assert (one.letter.event_id, one.event_type, dict(one.headers)["traceparent"]) == (EVENTS[0], "order.paid", b"00-a")
