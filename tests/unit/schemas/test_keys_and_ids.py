from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import ids, keys
from schemas.topics import declared, delay_name, names, retry_topic

ORGANIZATION = ids.organization_id(1, bytes(10))
OTHER = ids.organization_id(2, bytes(10))


@pytest.mark.parametrize(
    # Vectors of org.apache.kafka.common.utils.UtilsTest.testMurmur2 (Apache Kafka), as signed 32-bit numbers.
    ("text", "hashed"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_agrees_with_kafka(text: str, hashed: int) -> None:
    assert keys.murmur2(text.encode()) == hashed & 0xFFFFFFFF


def test_event_ids_are_version_7_carry_their_time_and_sort_by_it() -> None:
    made = [ids.event_id(at, random.randbytes(10)) for at in (0, 1, 1_795_485_083_155, (1 << 48) - 1)]
    assert made == sorted(made)
    assert [ids.event_time_ms(event) for event in made] == [0, 1, 1_795_485_083_155, (1 << 48) - 1]
    assert all(ids.parse_event_id(event) == event for event in made)


@pytest.mark.parametrize(
    "text", ["", "evt_", "evt_01A20B40-2613-7e81-8b4f-01a3759c2793", "evt_01a20b40-2613-4e81-8b4f-01a3759c2793", "org_x"]
)
def test_only_the_canonical_spelling_is_an_event_id(text: str) -> None:
    assert ids.parse_event_id(text) is None
    assert ids.parse_event_id(ids.event_id(1, bytes(10)) + "\n") is None


@given(st.text(), st.text(), st.text(), st.text())
def test_dedup_keys_of_different_events_never_collide(source: str, event: str, other_source: str, other_event: str) -> None:
    if (source, event) != (other_source, other_event):
        assert keys.cloudevents_dedup_key(source, event) != keys.cloudevents_dedup_key(other_source, other_event)
    assert keys.native_dedup_key(source) != keys.cloudevents_dedup_key(event, other_source)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_equal_keys_of_two_organizations_or_modes_are_different_table_keys(key: str) -> None:
    made = {keys.table_key(organization, mode, key) for organization in (ORGANIZATION, OTHER) for mode in ("live", "test")}
    assert len(made) == 4


def test_the_fingerprint_tells_where_a_part_ends() -> None:
    assert keys.fingerprint("ab", "c", b"d") != keys.fingerprint("a", "bc", b"d")
    assert keys.fingerprint("a", "b", b"cd") != keys.fingerprint("a", "bc", b"d")
    assert keys.fingerprint("a", None, b"x") != keys.fingerprint("a", "", b"x")
    assert keys.fingerprint("a", None, b"{ }") != keys.fingerprint("a", None, b"{}")


@pytest.mark.parametrize(
    ("seconds", "name"), [(5, "5s"), (30, "30s"), (120, "2m"), (480, "8m"), (1_800, "30m"), (3_600, "1h"), (0.5, "500ms"), (90, "90s")]
)
def test_delay_topics_are_named_by_their_delay(seconds: float, name: str) -> None:
    assert delay_name(seconds) == name


def test_every_topic_is_declared_once_and_what_one_takes_the_next_can_take() -> None:
    topics = declared([5, 30])
    assert len(set(names(topics))) == len(topics)
    assert retry_topic(5) in names(topics)
    limits = {topic.name: topic.bytes_max for topic in topics}
    assert limits["events.ingested"] < limits["events.accepted"] <= limits["deliveries.dead"] < limits["events.rejected"]
