"""Events of organizations that asked for encryption: sealed on their way into the log, whatever way they take, or not taken at all."""

from __future__ import annotations

import json
from collections.abc import Iterable

from access.envelopes import DataKey, envelope_of
from schemas import ids
from schemas.problems import UNAVAILABLE, ProblemError
from tests.unit.ingest.api import HELD, PRINCIPAL, Api, slug

EVENT = {"type": "a.b", "payload": {"n": 1}, "subject": "jane", "idempotency_key": "k"}


class Keys:
    """Data keys by subject, made when asked for."""

    def __init__(self) -> None:
        self.made: dict[str | None, DataKey] = {}
        self.asked: list[set[str | None]] = []
        self.up = True

    async def of_subjects(self, _organization: str, subjects: Iterable[str | None]) -> dict[str | None, DataKey]:
        wanted = set(subjects)
        self.asked.append(wanted)
        if not self.up:
            raise ProblemError(UNAVAILABLE, "No.")
        for subject in sorted(wanted, key=str):
            number = len(self.asked) * 100 + len(self.made)
            self.made.setdefault(subject, DataKey(ids.data_key_id(number, bytes(10)), number.to_bytes(32)))
        return {subject: self.made[subject] for subject in wanted}


def encrypting() -> tuple[Api, Keys]:
    keys = Keys()
    api = Api(data_keys=keys)
    api.auth.principal = PRINCIPAL._replace(encryption=True)
    return api, keys


async def test_an_event_is_sealed_under_its_subjects_key_and_its_record_says_so() -> None:
    api, keys = encrypting()
    assert (await api.post(EVENT)).status == 201
    assert (api.only.encoding, api.only.subject, api.log.headers[0]["content-encoding"]) == ("aes256gcm", None, b"aes256gcm")
    opened = keys.made["jane"].open(api.only)
    assert (opened.subject, json.loads(opened.payload)) == ("jane", {"n": 1})


async def test_an_event_of_an_organization_that_did_not_ask_is_in_clear_and_no_key_is_looked_for() -> None:
    api = Api()  # without data keys
    assert (await api.post(EVENT)).status == 201
    assert (api.only.encoding, api.only.subject, api.log.headers[0]["content-encoding"]) == ("plain", "jane", b"plain")


async def test_an_event_that_takes_over_a_lapsed_reservation_opens_under_the_first_ones_id() -> None:
    api, keys = encrypting()
    api.held.outcomes = ["takeover"]
    assert (await api.post(EVENT)).body["id"] == HELD
    assert api.only.id == HELD
    assert keys.made["jane"].open(api.only).subject == "jane"


async def test_without_its_key_an_event_is_refused_and_never_appended_in_clear() -> None:
    api, keys = encrypting()
    keys.up = False
    answer = await api.post(EVENT)
    assert (answer.status, slug(answer), api.log.events) == (503, "unavailable", [])
    answer = await api.batch([EVENT])
    assert (answer.status, api.log.events) == (503, [])


async def test_the_same_event_has_one_fingerprint_and_it_is_no_hash_of_what_was_sent() -> None:
    api, _ = encrypting()
    plain = Api()
    for one in (api, api, plain):
        await one.post(EVENT)
    first, second = (event.fingerprint for event in api.log.events)
    assert first == second != plain.only.fingerprint


async def test_a_key_that_was_erased_while_the_request_was_under_way_seals_nothing_any_more() -> None:
    api, keys = encrypting()
    erased = False

    def on_trip() -> None:
        nonlocal erased
        if not erased and keys.made:
            erased = True
            keys.made.clear()
            api.auth.changes += 1

    api.tick.on_trip = on_trip
    assert (await api.post(EVENT)).status == 201
    assert erased
    assert envelope_of(bytes(api.only.payload)).key == keys.made["jane"].id
    assert keys.made["jane"].open(api.only).subject == "jane"


async def test_a_batch_asks_once_for_the_keys_of_all_its_subjects() -> None:
    api, keys = encrypting()
    batch = [{**EVENT, "subject": f"s{n % 3}", "idempotency_key": f"k{n}"} for n in range(30)]
    answer = await api.batch([*batch, {"type": "a.b", "payload": 1}])
    assert answer.status == 200
    assert keys.asked == [{"s0", "s1", "s2", None}]
    assert [keys.made[None if n == 30 else f"s{n % 3}"].open(event).subject for n, event in enumerate(api.log.events)] == [
        *(one["subject"] for one in batch), None,
    ]  # fmt: skip


def asked_for_meanwhile() -> tuple[Api, Keys]:
    """Whoever is under way, or in the cache of the process, learns of it from its own round trip to Redis."""
    keys = Keys()
    api = Api(data_keys=keys)

    def turned_on() -> None:
        if api.auth.principal == PRINCIPAL:
            api.auth.principal = PRINCIPAL._replace(encryption=True)
            api.auth.changes += 1

    api.tick.on_trip = turned_on
    return api, keys


async def test_no_event_is_appended_in_clear_once_the_round_trip_of_its_request_knows_better() -> None:
    api, keys = asked_for_meanwhile()
    assert (await api.post(EVENT)).status == 201
    assert (api.only.encoding, api.only.subject) == ("aes256gcm", None)
    assert json.loads(keys.made["jane"].open(api.only).payload) == {"n": 1}
    api, keys = asked_for_meanwhile()
    answer = await api.batch([EVENT, {**EVENT, "idempotency_key": "l"}])
    assert [one["status"] for one in answer.body["results"]] == [201, 201]
    assert {event.encoding for event in api.log.events} == {"aes256gcm"}
    api, keys = asked_for_meanwhile()
    api.held.outcomes = ["pending", "reserved"]
    assert (await api.post(EVENT)).status == 201
    assert api.only.encoding == "aes256gcm"
