"""What must hold after any fault: pure functions over what was posted and what the system shows at the end. Each returns anomalies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

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


class Hook(NamedTuple):
    """A webhook as a receiver got it. `verified`: what `standardwebhooks` says of its signature; `at_ms`: Unix time."""

    event_id: str
    path: str
    body: bytes
    verified: bool | None
    at_ms: float = 0


class _Body(msgspec.Struct):
    id: str
    data: msgspec.Raw


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
    there = set(numbers)
    for event in posted:
        if event.certain and event.number not in there:
            anomalies.append(f"event {event.number}: answered {event.created or event.named}, not in the inbox")
        if not event.certain and not event.uncertain and event.number in there:
            anomalies.append(f"event {event.number}: answered not_appended, and in the inbox")
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
            anomalies += [
                f"{event} to {endpoint}: forked, attempts {n} and {n + 1} were both made twice"
                for n, entries in made.items()
                if len(entries) > 1 and len(made.get(n + 1, ())) > 1
            ]
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


def check_strangers(
    event_ids: Collection[str],
    endpoints: Collection[str],
    journal: Sequence[JournalRecord],
    legs: Sequence[Leg],
    dead: Sequence[tuple[str, str]],
    *,
    copies_max: int = 1,
) -> list[str]:
    """Nothing is planned, attempted, scheduled or given up that nobody asked for, and dead letters are those the journal tells of.

    `event_ids` and `endpoints` are those of all organizations together, `dead` the (event, endpoint) of each dead letter.
    """
    told: list[tuple[str, tuple[str, ...]]] = []
    gone: set[tuple[str, str]] = set()
    for entry in journal:
        told.append((entry.event_id, (*entry.endpoint_ids, *entry.fifo) if isinstance(entry, Planned) else (entry.endpoint_id,)))
        if isinstance(entry, Attempted) and isinstance(entry.next, Dead):
            gone.add((entry.event_id, entry.endpoint_id))
    told += [(leg.event_id, (leg.endpoint_id,)) for leg in legs]
    told += [(event, (endpoint,)) for event, endpoint in dead]
    anomalies = [f"{event}: delivered without being in an inbox" for event in {event for event, _ in told} - set(event_ids)]
    anomalies += [f"{one}: an endpoint nobody made" for one in {one for _, ones in told for one in ones} - set(endpoints)]
    letters = Counter(dead)
    anomalies += [f"{event} to {endpoint}: given up in the journal, no dead letter" for event, endpoint in gone - letters.keys()]
    anomalies += [f"{event} to {endpoint}: a dead letter the journal knows nothing of" for event, endpoint in letters.keys() - gone]
    anomalies += [f"{event} to {endpoint}: {n} dead letters" for (event, endpoint), n in letters.items() if n > copies_max]
    return anomalies


def check_order(event_ids: Iterable[str], hooks: Sequence[Hook]) -> list[str]:
    """A FIFO endpoint never gets an event after a later one of the inbox (`event_ids`), whatever was sent to it twice."""
    place = {event_id: n for n, event_id in enumerate(event_ids)}
    seen = [place[hook.event_id] for hook in hooks if hook.event_id in place]
    return [f"{hooks[0].path}: event {later} came after event {earlier}" for earlier, later in pairwise(seen) if later < earlier]


def check_webhooks(inbox: Mapping[str, bytes], hooks: Sequence[Hook]) -> list[str]:
    """Every webhook is of an event in an inbox (id → payload), signed, with its bytes, and the same on every attempt at a path."""
    anomalies: list[str] = []
    first: dict[tuple[str, str], bytes] = {}
    for hook in hooks:
        if hook.verified is not True:
            anomalies.append(f"{hook.event_id}: a webhook with a wrong signature")
        if hook.event_id not in inbox:
            anomalies.append(f"{hook.event_id}: a webhook of an event that is in no inbox")
            continue
        body = msgspec.json.decode(hook.body, type=_Body)
        if bytes(body.data) != inbox[hook.event_id] or body.id != hook.event_id:
            anomalies.append(f"{hook.event_id}: a webhook with other bytes than the inbox: {hook.body!r}")
        if first.setdefault((hook.event_id, hook.path), hook.body) != hook.body:
            anomalies.append(f"{hook.event_id}: attempts with different bodies")
    return anomalies


def check_history(
    hooks: Sequence[Hook], paths: Mapping[str, str], journal: Sequence[JournalRecord], schedule_s: Sequence[float], *, deaths: int
) -> list[str]:
    """The journal has what receivers saw, but for one attempt of a delivery per death of a worker; and nothing was attempted early.

    `paths`: path → endpoint id. `schedule_s`: the pauses of every endpoint.
    """
    seen: dict[tuple[str, str], list[float]] = {}
    for hook in hooks:
        seen.setdefault((hook.event_id, paths[hook.path]), []).append(hook.at_ms)
    made: dict[tuple[str, str], list[Attempted]] = {}
    for entry in journal:
        if isinstance(entry, Attempted):
            made.setdefault((entry.event_id, entry.endpoint_id), []).append(entry)
    anomalies: list[str] = []
    for delivery in seen.keys() | made.keys():
        times, entries = sorted(seen.get(delivery, ())), made.get(delivery, [])
        answered = sum(entry.status is not None for entry in entries)
        name = " to ".join(delivery)
        if len(times) - len(entries) > deaths:
            anomalies.append(f"{name}: {len(times)} attempts seen, {len(entries)} in the journal, {deaths} deaths")
        if answered > len(times):
            anomalies.append(f"{name}: {answered} answers in the journal, {len(times)} attempts seen")
        firsts = {entry.attempt: entry for entry in reversed(entries)}  # a copy that a worker left which stood still leads to nothing
        for entry in firsts.values():
            if isinstance(entry.next, Retry):
                early = [one for one in entries if one.attempt == entry.next.attempt and one.started_at_ms < entry.next.not_before_ms]
                anomalies += [
                    f"{name}: attempt {one.attempt} began {entry.next.not_before_ms - one.started_at_ms} ms early" for one in early
                ]
        # Who was killed may have made an attempt that no journal has, and who got no answer may have reached nobody: then the numbers may
        # be equal and what was seen be other attempts than those in the journal.
        same = len(firsts) == len(entries) and (not deaths or answered == len(entries))
        if same and len(times) == len(entries):
            gaps_s = [(later - earlier) / 1000 for earlier, later in pairwise(times)]
            anomalies += [
                f"{name}: the receiver saw a pause of {gap} s" for gap, pause in zip(gaps_s, schedule_s, strict=False) if gap < pause
            ]
    return anomalies
