"""What must hold after any fault: pure functions over what was posted and what the system shows at the end. Each returns anomalies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from schemas.deliveries import Attempted, Dead, JournalRecord, Planned, Retry
from tests.chaos.workload import Posted


class Row(NamedTuple):
    """An inbox event as a reader sees it."""

    event_id: str
    payload: bytes


class Leg(NamedTuple):
    """A task found on a delay topic."""

    event_id: str
    endpoint_id: str
    attempt: int
    hop: int


def check_inbox(posted: Sequence[Posted], inbox: Sequence[Row], explained: Mapping[str, tuple[str, str | None]]) -> list[str]:
    """Each certain event once, in the order it was posted, byte for byte; nothing else; each answered id accounted for.

    `explained[id]` is (status, original) from `GET /events/{id}` for every id that was ever answered.
    """
    anomalies: list[str] = []
    by_payload = {event.body: event for event in posted}
    shown = [by_payload.get(row.payload) for row in inbox]
    for row, event in zip(inbox, shown, strict=True):
        if event is None:
            anomalies.append(f"{row.event_id}: in the inbox, never posted: {row.payload!r}")
    numbers = [event.number for event in shown if event is not None]
    anomalies += [f"event {number}: {count} times in the inbox" for number, count in Counter(numbers).items() if count > 1]
    anomalies += [
        f"event {event.number}: answered {event.created or event.named}, not in the inbox"
        for event in posted
        if event.number not in numbers
    ]
    if numbers != sorted(numbers):
        anomalies.append(f"the inbox is out of order: {numbers}")
    ids = {event.number: row.event_id for row, event in zip(inbox, shown, strict=True) if event is not None}
    for event in posted:
        for event_id in {*event.created, *event.named}:
            status, original = explained.get(event_id, ("missing", None))
            if status == "accepted" and ids.get(event.number) == event_id:
                continue
            if status == "duplicate" and original == ids.get(event.number):
                continue
            anomalies.append(
                f"{event_id}: answered for event {event.number}, is {status} of {original}; the inbox shows {ids.get(event.number)}"
            )
    return anomalies


def check_deliveries(
    event_ids: Iterable[str],
    endpoints: Sequence[str],
    journal: Sequence[JournalRecord],
    legs: Sequence[Leg],
    *,
    copies_max: int = 1,
) -> list[str]:
    """Each (event, endpoint) delivered, dead or scheduled; attempts 1, 2, … each journalled once; no retry on a delay topic twice.

    `copies_max` above 1 allows what a worker that stood still past its session may leave: one more copy, which must lead to nothing.
    """
    anomalies: list[str] = []
    plans = Counter(entry.event_id for entry in journal if isinstance(entry, Planned))
    anomalies += [f"{event}: planned {count} times" for event, count in plans.items() if count > copies_max]
    attempts: dict[tuple[str, str], dict[int, list[Attempted]]] = {}
    for entry in journal:
        if isinstance(entry, Attempted):
            attempts.setdefault((entry.event_id, entry.endpoint_id), {}).setdefault(entry.attempt, []).append(entry)
    found = Counter(legs)
    anomalies += [f"{leg}: scheduled {count} times" for leg, count in found.items() if count > copies_max]
    for event in event_ids:
        for endpoint in endpoints:
            made = attempts.get((event, endpoint), {})
            anomalies += [f"{event} to {endpoint}: attempt {n} journalled {len(e)} times" for n, e in made.items() if len(e) > copies_max]
            if sorted(made) != list(range(1, len(made) + 1)):
                anomalies.append(f"{event} to {endpoint}: attempts {sorted(made)}")
            if not made:
                anomalies.append(f"{event} to {endpoint}: never attempted")
                continue
            last = made[max(made)][0]
            delivered = any(entry.outcome == "delivered" for entries in made.values() for entry in entries)
            if isinstance(last.next, Retry):
                if not any(leg[:3] == (event, endpoint, last.next.attempt) for leg in found):
                    anomalies.append(f"{event} to {endpoint}: attempt {last.next.attempt} is due and on no delay topic")
            elif not delivered and not isinstance(last.next, Dead):
                anomalies.append(f"{event} to {endpoint}: ended without delivery, dead letter or retry")
    return anomalies
