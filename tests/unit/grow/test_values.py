"""What names a place names the same record after a move; everything else of a value stays byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

import schemas
from delivery.journal import Checkpoint
from processors.dedup import Marker
from schemas import codec, ids, keys
from schemas.codec import CodecError, rejected_headers
from schemas.deliveries import FifoPosition, Planned, Replay
from schemas.events import Duplicate, First, Ingested, Origin
from schemas.lifecycle import Dropped, LetterOf, LifecycleRecord
from schemas.records import Record
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_DEAD, EVENTS_ACCEPTED, EVENTS_INGESTED
from triggers.grow import values
from triggers.grow.places import Place, Places, merged
from triggers.grow.values import Move, NotMoved

OLD, NEW = 2, 5
OURS, THEIRS = (ids.organization_id(number, bytes(10)) for number in (1, 2))
KEY, OTHER = keys.record_key(OURS), keys.record_key(THEIRS)
SOURCE, TARGET = keys.partition_of(KEY, OLD), keys.partition_of(KEY, NEW)
EVENT, ENDPOINT = ids.event_id(5, bytes(10)), ids.endpoint_id(5, bytes(10))
#: In our old partition, ours are every third record: old offsets 2, 5, 8 … come to new ones.
COUNT = 12


@pytest.fixture(scope="module")
def move() -> Move:
    filler = next(key for n in range(99) if _goes(key := b"org_%d" % n, SOURCE) and not _goes_new(key, TARGET))
    log = {SOURCE: [Record(at, at, KEY if at % 3 == 2 else filler, b"", ()) for at in range(COUNT)]}
    topics, ends = dict[str, Places](), dict[str, dict[int, int]]()
    for topic in (EVENTS_INGESTED, EVENTS_ACCEPTED, DELIVERIES_ATTEMPTS, DELIVERIES_DEAD):
        topics[topic], ends[topic] = Places(), {}
        list(merged(log, NEW, topics[topic], ends=ends[topic]))
    return Move(generation=4, old=OLD, new=NEW, topics=topics, ends=ends)


def _goes(key: bytes, partition: int) -> bool:
    return keys.partition_of(key, OLD) == partition


def _goes_new(key: bytes, partition: int) -> bool:
    return keys.partition_of(key, NEW) == partition


def event() -> Ingested:
    return Ingested(
        v=1, id=EVENT, organization=OURS, mode="live", type="t", received_at_ms=1, fingerprint="0" * 64, payload=Raw(b'{ "n" : 1.0 }')
    )


def read(value: bytes | None) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(value or b"")
    return document


def test_an_accepted_record_says_where_it_was_first_and_keeps_every_other_byte(move: Move) -> None:
    ingested = codec.encode(event())[:-1] + b', "later": [1.0, "\\u00e9"] }'
    value = codec.encode_accepted(ingested, 5, 77)
    moved = values.accepted(move, value, Place(SOURCE, 8))
    assert moved is not None and moved.endswith(b'"event":' + ingested + b"}")
    record = codec.accepted.decode(moved)
    assert record.ingested == Origin(1, 77)
    assert record.first == First(generation=4, partition=SOURCE, offset=8, ingested_offset=5)
    with pytest.raises(NotMoved, match=r"events.ingested\[.\]@1, which is another organization's"):
        values.accepted(move, codec.encode_accepted(ingested, 1, 77), Place(SOURCE, 8))
    once_more = values.accepted(move._replace(generation=5), moved.replace(b'"offset":1', b'"offset":5', 1), Place(SOURCE, 2))
    with pytest.raises(NotMoved, match=r"events.ingested\[.\]@1000"):
        values.accepted(move, codec.encode_accepted(ingested, 1_000, 77), Place(SOURCE, 8))
    # The place it was first at stays.
    assert codec.accepted.decode(once_more).first == record.first


def test_an_envelope_stays_byte_for_byte(move: Move) -> None:
    """Its ciphertext is bound to organization, mode and event, which stay."""
    value = (Path(schemas.__file__).parent / "examples" / EVENTS_ACCEPTED / "encrypted.json").read_bytes()
    value = value.replace(codec.accepted.decode(value).event.organization.encode(), OURS.encode())
    record = codec.accepted.decode(value)
    spaced = bytes(record.event.payload).replace(b",", b" ,\n")
    value = value.replace(bytes(record.event.payload), spaced).replace(b'"offset":41', b'"offset":5')
    found = codec.accepted.decode(values.accepted(move, value, Place(SOURCE, 5)))
    assert (bytes(found.event.payload), found.event.encoding) == (spaced, "aes256gcm")
    assert msgspec.structs.replace(found.event, payload=record.event.payload) == record.event


def test_what_cannot_be_read_stays_as_it_is(move: Move) -> None:
    at = Place(SOURCE, 2)
    for value in (None, b"", b"poison", b'{"v":9}', b'{"v":1}'):
        assert values.accepted(move, value, at) is value
        assert values.duplicate(move, value, at) is value
        assert values.journal(move, value) is value
        assert values.request(move, value) is value


def test_plans_duplicates_and_replays_name_the_same_records(move: Move) -> None:
    lost = Duplicate(v=1, id=EVENT, organization=OURS, mode="live", type="t", original_id=EVENT, kind="conflict", ingested=Origin(11, 9))
    assert codec.duplicate.decode(values.duplicate(move, codec.encode(lost), Place(SOURCE, 0))).ingested == Origin(3, 9)
    plan = Planned(v=1, event_id=EVENT, organization=OURS, mode="live", accepted_offset=8, endpoint_ids=[ENDPOINT])
    moved = values.journal(move, codec.encode(plan)[:-1] + b',"later":1.0}')
    assert read(moved) == {**read(codec.encode(plan)), "accepted_offset": 2, "later": 1.0}
    replay = Replay(
        v=1, round=ids.round_id(1, bytes(10)), organization=OURS, mode="live", endpoint_id=ENDPOINT, next_offset=3, until_offset=9,
        since_ms=0, until_ms=9, page=7, ingested_high=4,
    )  # fmt: skip
    found = codec.request.decode(values.request(move, codec.encode(replay)))
    assert isinstance(found, Replay)
    assert (found.next_offset, found.until_offset, found.ingested_high, found.page) == (1, 3, 0, 7)


def test_a_fifo_endpoint_goes_on_with_the_plan_it_was_at(move: Move) -> None:
    def at(journal_offset: int, accepted_offset: int) -> tuple[int, int]:
        position = FifoPosition(
            v=1, organization=OURS, mode="live", endpoint_id=ENDPOINT, journal_offset=journal_offset, accepted_offset=accepted_offset,
            event_id=EVENT, attempt=3,
        )  # fmt: skip
        moved = values.fifo(move, position)
        assert (moved.event_id, moved.attempt) == (EVENT, 3)
        return moved.journal_offset, moved.accepted_offset

    assert at(0, -1) == (0, -1)
    assert at(3, 2) == (1, 0)
    assert at(6, 5) == (2, 1)
    assert at(COUNT, COUNT - 1) == (4, 3)


def test_a_decision_about_a_record_is_about_the_same_one_and_goes_with_one_that_is_gone(move: Move) -> None:
    letter = LetterOf(event_id=EVENT, endpoint_id=ENDPOINT)
    record = Dropped(v=1, topic=DELIVERIES_DEAD, generation=4, partition=SOURCE, offset=5, actor="a", at_ms=1, letter=letter)
    found = values.dropped(move, codec.encode(record)[:-1] + b',"later":1.0}', record)
    assert found is not None and found[0] == TARGET
    assert read(found[1]) == {**read(codec.encode(record)), "generation": 5, "partition": TARGET, "offset": 1, "later": 1.0}
    for gone in (
        Dropped(v=1, topic=DELIVERIES_DEAD, generation=4, partition=SOURCE, offset=500, actor="a", at_ms=1),
        Dropped(v=1, topic=DELIVERIES_DEAD, generation=3, partition=SOURCE, offset=5, actor="a", at_ms=1),
    ):
        assert values.dropped(move, codec.encode(gone), gone) is None


def test_every_kind_of_record_on_lifecycle_has_its_rule() -> None:
    """One that is new must say how a move maps it: in `triggers.grow.values` if it names a place, and then here. All that names none goes
    with its key (`triggers.grow.rewrite`)."""
    names_a_place = {"Dropped"}
    names_none = {"RetentionMoved", "Erased"}
    assert {kind.__name__ for kind in LifecycleRecord.__args__} == names_a_place | names_none


def test_a_marker_holds_its_key_for_the_same_record(move: Move) -> None:
    key = keys.table_key(OURS, "live", "k:1")
    assert values.marker(move, key, Marker(1, SOURCE, 5, 9, EVENT, "f")) == Marker(1, TARGET, 1, 9, EVENT, "f")
    assert values.marker(move, key, Marker(1, SOURCE, 500, 9, EVENT, "f")) is None
    assert values.marker(move, key, Marker(1, 1 - SOURCE, 5, 9, EVENT, "f")) is None


def test_a_rejected_record_says_where_it_was_and_nothing_where_that_is_gone(move: Move) -> None:
    headers = [("a", b"\xff"), *rejected_headers(EVENTS_INGESTED, SOURCE, 8, CodecError("malformed", "x"))]
    found = dict(values.rejected(move, headers))
    assert (found["rejected-partition"], found["rejected-offset"], found["a"]) == (b"%d" % TARGET, b"2", b"\xff")
    gone = dict(values.rejected(move, rejected_headers(EVENTS_INGESTED, SOURCE, 800, CodecError("malformed", "x"))))
    assert gone["rejected-offset"] is None
    unknown: list[tuple[str, bytes | None]] = [("rejected-topic", b"\xff"), ("rejected-offset", b"x")]
    assert values.rejected(move, unknown) == unknown


def test_a_new_owner_reads_from_the_first_place_that_any_old_checkpoint_needs(move: Move) -> None:
    olds = {
        SOURCE: Checkpoint(h=11, t={DELIVERIES_ATTEMPTS: 4, DELIVERIES_DEAD: COUNT}),
        1 - SOURCE: Checkpoint(h=3, t={DELIVERIES_ATTEMPTS: 0}),
    }
    assert values.checkpoint(move, olds, TARGET) == Checkpoint(h=3, t={DELIVERIES_ATTEMPTS: 1})
    none = {number: Checkpoint() for number in range(OLD)}
    assert values.checkpoint(move, none, TARGET) == Checkpoint()  # read from the beginning, as before


def test_golden_messages_that_name_no_place_stay_as_they_are(move: Move) -> None:
    examples = Path(schemas.__file__).parent / "examples" / DELIVERIES_ATTEMPTS
    for path in examples.iterdir():
        if not isinstance(codec.journal.decode(path.read_bytes()), Planned):
            assert values.journal(move, path.read_bytes()) == path.read_bytes()
