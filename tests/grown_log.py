"""A log of two partitions with everything in it that names a place, each where it belongs: to be moved to more partitions."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from msgspec import Raw

from processors.dedup import Marker, encode_marker
from schemas import codec, ids, keys
from schemas.codec import CodecError, rejected_headers
from schemas.deliveries import FifoPosition, Planned, RetryTask
from schemas.events import Ingested
from schemas.lifecycle import Dropped, Erased, LetterOf, RetentionMoved
from schemas.records import Record
from schemas.topics import (
    DEDUP_CHANGELOG,
    DELIVERIES_ATTEMPTS,
    DELIVERIES_DEAD,
    DELIVERIES_FIFO,
    EVENTS_ACCEPTED,
    EVENTS_INGESTED,
    EVENTS_REJECTED,
    LIFECYCLE,
    retry_topic,
)

OLD, NEW, EVENTS = 2, 7, 200
DELAYS_S = [5.0]
RETRY = retry_topic(5)
ORGANIZATIONS = [ids.organization_id(number, bytes(10)) for number in range(9)]
ENDPOINT = ids.endpoint_id(1, bytes(10))
ENVELOPE = b'{"key": "dk_01a20b40-260e-7001-8203-040506070809", "nonce":"1D16PXdrO+zo3QTE","ciphertext":"K63V"}'
#: Its letter went before partitions were grown.
GONE = LetterOf(event_id=ids.event_id(9_999, bytes(10)), endpoint_id=ENDPOINT)
Log = dict[tuple[str, int], list[Record]]


def log(begin_ms: int = 1_000) -> Log:
    """Events of nine organizations with all that comes of them, some encrypted, and a retry for each; marks, erasures and decisions; an
    ingested record that nobody can read, and two of `lifecycle`."""
    found: Log = defaultdict(list)

    def put(topic: str, partition: int, key: bytes, value: bytes | None, at_ms: int, headers: Any = ()) -> int:
        records = found[topic, partition]
        records.append(Record(len(records), at_ms, key, value, headers))
        return len(records) - 1

    for number in range(EVENTS):
        organization = ORGANIZATIONS[number * 7 % len(ORGANIZATIONS)]
        key, event_id, at_ms = keys.record_key(organization), ids.event_id(number, bytes(10)), begin_ms + number // 3
        partition = keys.partition_of(key, OLD)
        event = Ingested(
            v=1, id=event_id, organization=organization, mode="live", type="t", received_at_ms=number, fingerprint="0" * 64,
            dedup_key=f"k:{number}", payload=Raw(b"%d" % number if number % 5 else ENVELOPE),
            encoding="plain" if number % 5 else "aes256gcm",
        )  # fmt: skip
        value = codec.encode(event)
        if number == 50:
            bad = put(EVENTS_INGESTED, partition, key, b"poison", at_ms)
            put(
                EVENTS_REJECTED,
                partition,
                key,
                b"poison",
                at_ms,
                rejected_headers(EVENTS_INGESTED, partition, bad, CodecError("malformed", "x")),
            )
            drop = Dropped(v=1, topic=EVENTS_REJECTED, generation=1, partition=partition, offset=0, actor="a", at_ms=1)
            put(LIFECYCLE, partition, b"-", codec.encode(drop), at_ms)
        if number in (20, 120):
            tell_lifecycle(put, organization, at_ms)
        at = put(EVENTS_INGESTED, partition, key, value, at_ms)
        accepted = put(EVENTS_ACCEPTED, partition, key, codec.encode_accepted(value, at, at_ms), at_ms)
        if number % 40 == 39:  # a copy that a crash of dedup left
            put(EVENTS_ACCEPTED, partition, key, codec.encode_accepted(value, at, at_ms), at_ms)
        marker = Marker(1, partition, at, at_ms, event_id, "0" * 64)
        put(DEDUP_CHANGELOG, partition, keys.table_key(organization, "live", f"k:{number}"), encode_marker(marker), at_ms)
        plan = Planned(v=1, event_id=event_id, organization=organization, mode="live", accepted_offset=accepted, endpoint_ids=[ENDPOINT])
        journalled = put(DELIVERIES_ATTEMPTS, partition, key, codec.encode(plan), at_ms)
        task = RetryTask(
            v=1, organization=organization, mode="live", event_id=event_id, endpoint_id=ENDPOINT, attempt=2, not_before_ms=9, history=[],
            event=Raw(value),
        )  # fmt: skip
        put(RETRY, partition, key, codec.encode(task), at_ms)
        if organization == ORGANIZATIONS[0]:
            position = FifoPosition(
                v=1, organization=organization, mode="live", endpoint_id=ENDPOINT, journal_offset=journalled + 1, accepted_offset=accepted
            )
            put(DELIVERIES_FIFO, partition, ENDPOINT.encode(), codec.encode(position), at_ms)
    return found


def tell_lifecycle(put: Any, organization: ids.OrganizationId, at_ms: int) -> None:
    key = keys.record_key(organization)
    partition = keys.partition_of(key, OLD)
    mark = RetentionMoved(v=1, organization=organization, mode="live", before_ms=at_ms, actor="a", at_ms=1)
    erased = Erased(v=1, organization=organization, what="subject", keys=[ids.data_key_id(1, bytes(10))], actor="a", at_ms=1)
    gone = Dropped(v=1, topic=DELIVERIES_DEAD, generation=1, partition=partition, offset=7, actor="a", at_ms=1, letter=GONE)
    for value in (mark, erased, gone):
        put(LIFECYCLE, partition, key, codec.encode(value)[:-1] + b', "later": 1.0}', at_ms)
    bad = put(LIFECYCLE, partition, key, b"poison of lifecycle", at_ms)
    headers = rejected_headers(LIFECYCLE, partition, bad, CodecError("malformed", "x"))
    put(EVENTS_REJECTED, partition, key, b"poison of lifecycle", at_ms, headers)
