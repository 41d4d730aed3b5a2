"""The fast path does what the general way does: the same answer, the same record, the same calls; and what is plain goes by it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from ingest.append import not_appended, unknown
from ingest.connection import Cycle
from runtime.settings import ApiSettings
from schemas import codec
from tests.unit.ingest.api import Api
from tests.unit.ingest.fakes import PRINCIPAL
from tests.unit.ingest.wire import House

_MADE = re.compile(rb"(evt|req)_[0-9a-f-]{36}|\d{4}-\d\d-\d\dT[0-9:.]+Z|date: [^\r]+")
EVENT: dict[str, Any] = {"type": "a.b", "payload": {"n": 1}}
KEYED = {**EVENT, "idempotency_key": "k"}
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
CLOUDEVENT = {"ce-id": "1", "ce-source": "/s", "ce-specversion": "1.0", "ce-type": "a.b"}

Change = Callable[[Api], object]


class Done(NamedTuple):
    """What one request did. Ids and times are written over; what `by_task` says is the way it took."""

    status_line: bytes
    headers: frozenset[bytes]
    body: bytes
    records: list[dict[str, Any]]
    record_headers: list[set[str]]
    told: list[str]
    counted: list[int]


class Rig:
    def __init__(self, *, fast: bool) -> None:
        self.api = Api()
        self.house = House(ApiSettings(), self.api.app)
        self.tasks = 0
        if fast:
            self.house.shared.fast_path = self.api.app.fast_path
        self.protocol, self.transport = self.house.connect()
        start = self.protocol.start_task

        def counted(cycle: Cycle) -> None:
            self.tasks += 1
            start(cycle)

        self.protocol.start_task = counted  # type: ignore[method-assign]

    def send(self, event: object, headers: dict[str, str] | None = None) -> None:
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        lines = {"Host": "x", "X-API-Key": "k", "Content-Type": "application/json", **(headers or {}), "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        self.protocol.data_received(b"POST /events HTTP/1.1\r\n" + head.encode() + b"\r\n" + body)

    async def answered(self) -> None:
        async with asyncio.timeout(10):
            while not self.transport.written or self.house.state.tasks:
                await asyncio.sleep(0)

    async def done(self) -> Done:
        await self.answered()
        head, _, body = self.transport.written.partition(b"\r\n\r\n")
        lines = _MADE.sub(b"MADE", head).split(b"\r\n")
        records = [json.loads(codec.encode(event)) for event in self.api.log.events]
        made = ("id", "received_at_ms")
        return Done(
            lines[0], frozenset(lines[1:]), _MADE.sub(b"MADE", body), [{k: v for k, v in r.items() if k not in made} for r in records],
            [set(headers) for headers in self.api.log.headers], [what for what, _ in self.api.held.told], self.api.quota.taken,
        )  # fmt: skip


async def both(change: Change, event: object, headers: dict[str, str] | None = None) -> tuple[Done, int]:
    """What the request did by the fast path, which is what it does without; and how many tasks the first took."""
    found = []
    for fast in (False, True):
        rig = Rig(fast=fast)
        change(rig.api)
        rig.send(event, headers)
        found.append((await rig.done(), rig.tasks))
    assert found[1][0] == found[0][0]
    assert found[0][1] == 1
    return found[1]


def nothing(_: Api) -> None:
    pass


def holding(outcome: Any) -> Change:
    return lambda api: api.held.outcomes.__setitem__(0, outcome)


def failing(error: Any) -> Change:
    return lambda api: setattr(api.log, "error", error)


def slow(api: Api) -> None:
    api.log.slow_s = 60


def revoked(api: Api) -> None:
    api.tick.on_trip = api.auth.revoke


def stricter(api: Api) -> None:
    def change() -> None:
        api.auth.changes, api.types.refused = api.auth.changes + 1, "a.b"

    api.tick.on_trip = change


def reissued(api: Api) -> None:
    """Something changed, but not this key."""
    moves = iter([1])
    api.tick.on_trip = lambda: setattr(api.auth, "changes", api.auth.changes + next(moves, 0))


@pytest.mark.parametrize(
    "headers", [{}, {"Idempotency-Key": '"k"'}, {"X-Request-Id": "mine"}, {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}]
)
@pytest.mark.parametrize("event", [EVENT, KEYED, {**EVENT, "subject": "s", "occurred_at": "2026-11-24T02:31:23Z"}])
async def test_a_plain_event_takes_no_task(event: dict[str, Any], headers: dict[str, str]) -> None:
    done, tasks = await both(nothing, event, headers)
    assert done.status_line == b"HTTP/1.1 201 Created"
    assert len(done.records) == 1
    assert done.counted == [1]
    assert tasks == 0


@pytest.mark.parametrize(
    ("change", "status", "appended", "told"),
    [
        (holding("duplicate"), 409, 0, []), (holding("conflict"), 422, 0, []), (holding("pending"), 409, 0, []),
        (holding("takeover"), 201, 1, ["confirm"]), (failing(not_appended("Full.")), 503, 0, ["release"]), (failing(unknown()), 503, 0, []),
        (slow, 503, 0, []), (revoked, 401, 0, ["release"]), (stricter, 422, 0, ["release"]), (reissued, 201, 1, ["confirm"]),
    ],
    ids=["duplicate", "conflict", "pending", "takeover", "not appended", "unknown", "slow", "revoked", "stricter", "reissued"],
)  # fmt: skip
async def test_what_turns_out_not_to_be_plain_ends_as_it_would_have(change: Change, status: int, appended: int, told: list[str]) -> None:
    done, tasks = await both(change, KEYED)
    assert done.status_line.split(b" ")[1] == b"%d" % status
    assert len(done.records) == appended
    assert done.told == told
    assert done.counted == [1], "counted once"
    assert tasks == 1


@pytest.mark.parametrize(
    ("change", "event", "headers", "status"),
    [
        (nothing, b"{", {}, 400), (nothing, {"type": ""}, {}, 422), (nothing, {**EVENT, "payload": "x" * 300_000}, {}, 413),
        (nothing, EVENT, {"Content-Type": "text/plain"}, 415), (nothing, EVENT, {"X-API-Key": ""}, 401), (nothing, EVENT, CLOUDEVENT, 201),
        (nothing, KEYED, {"Idempotency-Key": "other"}, 422), (nothing, EVENT, {"Idempotency-Key": '"'}, 400),
        (nothing, EVENT, {"Content-Encoding": "gzip"}, 400), (nothing, {"type": "refused.type", "payload": 1}, {}, 422),
        (lambda api: setattr(api.quota, "left", 0), EVENT, {}, 429), (lambda api: setattr(api.tick, "up", False), EVENT, {}, 201),
        (lambda api: setattr(api.auth, "known", False), EVENT, {}, 201),
        (lambda api: setattr(api.auth, "principal", PRINCIPAL._replace(scopes=())), EVENT, {}, 403),
    ],
    ids=["no JSON", "no type", "large", "text", "no key", "CloudEvent", "two keys", "bad key", "gzip", "schema", "quota", "no Redis",
         "unknown key", "scope"],
)  # fmt: skip
async def test_what_is_not_plain_is_left_to_the_general_way(change: Change, event: object, headers: dict[str, str], status: int) -> None:
    done, tasks = await both(change, event, headers)
    assert done.status_line.split(b" ")[1] == b"%d" % status
    assert tasks == 1


async def test_a_caller_that_goes_away_leaves_its_event_in_the_log_and_gets_nothing() -> None:
    rig = Rig(fast=True)
    rig.api.log.on_append = lambda: rig.protocol.connection_lost(None)
    rig.send(KEYED)
    async with asyncio.timeout(10):
        while rig.house.state.tasks:
            await asyncio.sleep(0)
    assert len(rig.api.log.events) == 1
    assert [what for what, _ in rig.api.held.told] == ["confirm"]
    assert rig.transport.written == b""


async def test_an_answer_waits_for_a_caller_that_does_not_read_and_is_not_logged_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("ingest.edge.event_line", lambda stage, **_: lines.append(stage))
    rig = Rig(fast=True)
    rig.protocol.pause_writing()
    rig.send(KEYED)
    async with asyncio.timeout(10):
        while not rig.tasks:
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not rig.transport.written.endswith(b"}")
    rig.protocol.resume_writing()
    done = await rig.done()
    assert done.status_line == b"HTTP/1.1 201 Created"
    assert done.told == ["confirm"]
    assert lines == ["event.appended"]


async def test_what_is_under_way_when_the_server_stops_waiting_is_told_that_nobody_knows() -> None:
    rig = Rig(fast=True)
    slow(rig.api)
    rig.send(KEYED)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(rig.house.state.tasks) == 1
    for task in rig.house.state.tasks:  # as uvicorn does
        task.cancel(msg="stopped")
    done = await rig.done()
    assert done.status_line.split(b" ")[1] == b"503"
    assert json.loads(rig.transport.written.partition(b"\r\n\r\n")[2])["outcome"] == "unknown"
    assert done.told == []


async def test_requests_behind_one_another_are_answered_in_order_whichever_way_they_go() -> None:
    rig = Rig(fast=True)
    body = json.dumps(KEYED).encode()
    head = b"POST /events HTTP/1.1\r\nHost: x\r\nX-API-Key: k\r\nContent-Type: %b\r\nContent-Length: %d\r\nX-Request-Id: r%d\r\n\r\n"
    kinds = [b"application/json", b"text/plain", b"application/json", b"application/json"]
    rig.protocol.data_received(b"".join(head % (kind, len(body), number) + body for number, kind in enumerate(kinds)))
    async with asyncio.timeout(10):
        while rig.transport.written.count(b"HTTP/1.1 ") < len(kinds) or rig.house.state.tasks:
            await asyncio.sleep(0)
    assert re.findall(rb"HTTP/1.1 (\d+)", rig.transport.written) == [b"201", b"415", b"201", b"201"]
    assert re.findall(rb"x-request-id: r(\d)", rig.transport.written.lower()) == [b"0", b"1", b"2", b"3"]
    assert rig.tasks == 1


async def test_a_failure_of_ours_is_answered_and_logged_as_on_the_general_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> bytes:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("ingest.fast_path.record_headers", fails)
    rig = Rig(fast=True)
    rig.send(KEYED)
    done = await rig.done()
    assert done.status_line.split(b" ")[1] == b"500"
    assert b"secret" not in done.body
    rig.transport.written = b""
    monkeypatch.undo()
    rig.send(KEYED)
    assert (await rig.done()).status_line == b"HTTP/1.1 201 Created"


async def test_what_fails_when_the_answer_is_out_makes_no_second_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ingest.fast_path.log_append", broken)
    rig = Rig(fast=True)
    rig.send(KEYED)
    assert (await rig.done()).status_line == b"HTTP/1.1 201 Created"
    assert rig.tasks == 0
    assert rig.transport.written.count(b"HTTP/1.1 ") == 1
