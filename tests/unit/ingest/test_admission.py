"""What becomes of reservations, of keys that are revoked and of the order of a batch when something goes wrong in between."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingest.append import not_appended
from ingest.idempotency import Reservation
from runtime.redis import RedisUnavailable
from runtime.settings import IngestSettings
from schemas.ids import EventId
from schemas.problems import ProblemError
from tests.unit.ingest.api import Answer, Api, slug
from tests.unit.ingest.fakes import HELD


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Api:
    """One that gives a batch little time."""
    monkeypatch.setattr("tests.unit.ingest.api.SETTINGS", IngestSettings(request_deadline_s=0.3, batch_deadline_s=0.3))
    return Api()


def told(api: Api) -> list[str]:
    return [what for what, _ in api.held.told]


def statuses(answer: Answer) -> list[int]:
    assert answer.status == 200, answer.body
    return [result["status"] for result in answer.body["results"]]


def payloads(api: Api) -> list[Any]:
    return [json.loads(bytes(event.payload)) for event in api.log.events]


def keyed(*keys: str | None) -> list[dict[str, Any]]:
    """Events with these keys; those with the same key are the same event."""
    return [{"type": "a", "payload": key or n, **({"idempotency_key": key} if key else {})} for n, key in enumerate(keys)]


class Reserving:
    """Takes the place of `reserve`: each call runs the next of `steps`, the last for ever. A step gives an outcome or raises."""

    def __init__(self, api: Api, *steps: Any) -> None:
        self.asked: list[str] = []
        self._steps = list(steps)
        api.held.reserve = self  # type: ignore[method-assign, assignment]

    async def __call__(self, key: str, event_id: EventId, _fingerprint: str, _owner: str) -> Reservation:
        self.asked.append(key)
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        outcome = step() if callable(step) else step
        return Reservation(outcome, event_id if outcome == "reserved" else HELD, 1_500 if outcome == "pending" else 0)


def lost() -> str:
    raise RedisUnavailable("the answer was lost")


# -- one event


async def test_a_request_that_runs_out_of_time_before_its_append_gives_its_reservation_back(api: Api) -> None:
    def moved() -> str:
        api.auth.changes, api.auth.slow_s = api.auth.changes + 1, 60
        return "reserved"

    Reserving(api, moved)
    answer = await api.post(idempotency_key="k")
    assert (answer.status, slug(answer), answer.body["outcome"]) == (503, "unavailable", "not_appended")
    assert api.log.events == []
    assert told(api) == ["release"]


async def test_a_reservation_whose_answer_was_lost_is_given_back_when_nothing_was_appended(api: Api) -> None:
    Reserving(api, lost)
    api.log.error = not_appended("Full.")
    assert (await api.post(idempotency_key="k")).body["outcome"] == "not_appended"
    assert told(api) == ["release"]


async def test_a_reservation_whose_answer_was_lost_is_confirmed_by_the_append(api: Api) -> None:
    Reserving(api, lost)
    answer = await api.post(idempotency_key="k")
    assert api.held.told == [("confirm", answer.body["id"])]


@pytest.mark.parametrize("outcome", ["duplicate", "conflict", "pending"])
async def test_a_reservation_of_somebody_else_is_never_given_back(outcome: str, api: Api) -> None:
    Reserving(api, outcome)
    assert (await api.post(idempotency_key="k")).status in (409, 422)
    assert told(api) == []


async def test_a_key_that_lapsed_under_something_else_is_free_where_the_log_has_no_such_event(api: Api) -> None:
    Reserving(api, "lapsed", "reserved")
    answer = await api.post(idempotency_key="k")
    assert (answer.status, answer.body["id"]) == (201, api.only.id)
    assert api.only.id != HELD, "another event under one id would be dropped as a copy of it"
    assert api.held.told == [("free", HELD), ("confirm", api.only.id)]


async def test_a_key_that_lapsed_under_something_else_is_taken_where_the_log_has_its_event(api: Api) -> None:
    api.log.has_held = True
    Reserving(api, "lapsed", "conflict")
    answer = await api.post(idempotency_key="k")
    assert (answer.status, slug(answer), answer.body["id"]) == (422, "idempotency-key-reused", HELD)
    assert api.held.told == [("taken", HELD)]
    assert api.log.events == []


async def test_where_nobody_can_say_whether_a_lapsed_event_is_in_the_log_the_next_one_is_not_appended(api: Api) -> None:
    api.log.has_held = None
    Reserving(api, "lapsed")
    answer = await api.post(idempotency_key="k")
    assert (answer.status, answer.body["outcome"], api.log.events) == (503, "not_appended", [])
    assert told(api) == []
    answer = await api.batch(keyed("a", None))
    assert statuses(answer) == [503, 201]


# -- batches


async def test_keys_of_a_batch_that_lapsed_under_something_else_are_free_and_hold_up_nothing_else(api: Api) -> None:
    Reserving(api, "lapsed", "reserved", "reserved", "reserved")
    answer = await api.batch(keyed("a", "b", "a", None))
    assert statuses(answer) == [201] * 4
    assert api.held.told[0] != ("free", HELD), "what is free to go went first"
    assert [what for what, _ in api.held.told].count("free") == 1


async def test_a_batch_that_runs_out_of_time_gives_every_reservation_back(hasty: Api) -> None:
    def moved() -> str:
        hasty.auth.changes, hasty.auth.slow_s = hasty.auth.changes + 1, 60
        return "reserved"

    Reserving(hasty, moved)
    answer = await hasty.batch(keyed("a", "b", None, "a"))
    assert (answer.status, answer.body["outcome"]) == (503, "not_appended")
    assert told(hasty) == ["release", "release"]


async def test_a_key_revoked_while_the_second_event_of_a_key_is_reserved_appends_it_not(api: Api) -> None:
    """The first one was not appended, so the second is free to go: under a key that is valid no more."""

    def revoked() -> str:
        api.auth.revoke()
        api.log.error = None
        return "reserved"

    api.log.error = not_appended("Full.")
    Reserving(api, "reserved", revoked)
    assert statuses(await api.batch(keyed("a", "a"))) == [503, 401]
    assert api.log.events == []
    assert told(api) == ["release", "release"]


async def test_a_key_revoked_while_several_wait_lets_none_of_them_pass_and_is_looked_up_once(api: Api) -> None:
    looked_up = 0

    def revoked() -> str:
        api.auth.revoke()
        return "reserved"

    async def authenticate(_: str, address: str | None = None) -> Any:
        nonlocal looked_up
        looked_up += 1
        return await original(_, address)

    original, api.auth.slow_s = api.auth.authenticate, 0.02
    api.auth.authenticate = authenticate  # type: ignore[method-assign]
    Reserving(api, "pending", "pending", "pending", revoked, "reserved", "reserved")
    assert statuses(await api.batch(keyed("a", "b", "c"))) == [401, 401, 401]
    assert api.log.events == []
    assert looked_up == 1
    assert told(api) == ["release"] * 3


async def test_a_schema_that_comes_while_several_wait_holds_for_all_of_them(api: Api) -> None:
    def stricter() -> str:
        api.auth.changes, api.types.refused = api.auth.changes + 1, "a"
        return "reserved"

    Reserving(api, "pending", "pending", stricter, "reserved")
    assert statuses(await api.batch(keyed("a", "b"))) == [422, 422]
    assert api.log.events == []
    assert told(api) == ["release", "release"]


async def test_without_an_answer_of_redis_nothing_is_asked_again_and_the_order_stays(api: Api) -> None:
    """It may hold the reservation all the same: asked again it would name this very event as one in flight."""
    reserving = Reserving(api, lost, lost, "pending")
    assert statuses(await api.batch(keyed("a", None, "b", None))) == [201] * 4
    assert payloads(api) == ["a", 1, "b", 3]
    assert len(reserving.asked) == 2


async def test_of_two_events_with_one_key_the_first_goes_first_also_when_both_have_to_wait(api: Api) -> None:
    def first_or_not() -> str:
        return "duplicate" if "a" in payloads(api) else "reserved"

    Reserving(api, "pending", "reserved", "pending", "pending", first_or_not)
    answer = await api.batch(keyed("a", None, "free", "a", "a"))
    assert statuses(answer) == [201, 201, 201, 409, 409]
    assert payloads(api)[:2] == [1, "free"], "what waits holds up nobody else"
    assert payloads(api).count("a") == 1


async def test_an_event_that_was_not_appended_makes_room_for_the_next_with_its_key(api: Api) -> None:
    failures: list[ProblemError | None] = [not_appended("Full."), None]

    def next_one() -> str:
        api.log.error = failures.pop(0)
        return "reserved"

    Reserving(api, next_one)
    answer = await api.batch(keyed("a", "a"))
    assert statuses(answer) == [503, 201]
    assert told(api) == ["release", "confirm"]


async def test_an_unknown_outcome_in_a_batch_keeps_its_key(hasty: Api) -> None:
    hasty.log.slow_s = 60
    answer = await hasty.batch(keyed("a"))
    assert answer.body["results"][0]["problem"]["outcome"] == "unknown"
    assert told(hasty) == []
