"""Many callers with one key, and what is left of them: in the log, in the inbox, in `GET /events/{id}`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx

from runtime.settings import Settings
from schemas import codec
from schemas.events import Ingested
from schemas.problems import TYPE_PREFIX
from schemas.topics import EVENTS_INGESTED
from tests.flow.topics import read_topic
from triggers.provision import Tenant
from triggers.system import System, until

#: A caller asks until it knows: past the lease of a request that died, with time to spare on a loaded machine.
CERTAIN_WITHIN_S = 60.0
_PAUSE_S = 0.2
SETTLED_WITHIN_S = 40.0


class Told(NamedTuple):
    """The last answer of a caller, and the events that were named to it as in flight."""

    status: int
    event_id: str
    document: dict[str, Any]
    in_flight: frozenset[str]


def slug(document: dict[str, Any]) -> str:
    return str(document.get("type", "")).removeprefix(TYPE_PREFIX)


class Callers:
    """Each of them sends the same event, by turns to one of `urls`, until it is told for certain what became of it."""

    def __init__(self, urls: Sequence[str], key: str, event: dict[str, Any]) -> None:
        self._urls = urls
        self._key = key
        self._event = event
        self.answered = 0

    async def all(self, count: int, at_once: int) -> list[Told]:
        limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
        async with httpx.AsyncClient(headers={"X-API-Key": self._key}, timeout=30, limits=limits) as client:
            turns = asyncio.Semaphore(at_once)

            async def one(number: int) -> Told:
                async with turns:
                    told = await self.certain(client, self._urls[number % len(self._urls)])
                self.answered += 1
                return told

            return list(await asyncio.gather(*(one(number) for number in range(count))))

    async def certain(self, client: httpx.AsyncClient, url: str) -> Told:
        in_flight: set[str] = set()
        async with asyncio.timeout(CERTAIN_WITHIN_S):
            while True:
                try:
                    answer = await client.post(f"{url}/events", json=self._event)
                except httpx.TransportError:
                    await asyncio.sleep(_PAUSE_S)
                    continue
                document = answer.json()
                if answer.status_code == 201 or slug(document) == "duplicate-event":
                    assert answer.headers["Location"] == f"/events/{document['id']}"
                    return Told(answer.status_code, document["id"], document, frozenset(in_flight))
                assert slug(document) in ("request-in-flight", "outcome-unknown", "not-appended", "unavailable"), document
                assert int(answer.headers["Retry-After"]) > 0
                if "id" in document:
                    in_flight.add(document["id"])
                await asyncio.sleep(_PAUSE_S)


def in_the_log(settings: Settings, tenant: Tenant) -> list[Ingested]:
    """The records of an organization in `events.ingested`."""
    records = [
        codec.ingested.decode(record.value)
        for record in read_topic(settings, EVENTS_INGESTED)
        if record.key == tenant.organization.encode()
    ]
    return sorted(records, key=lambda event: event.received_at_ms)


def inbox(client: httpx.Client) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = client.get("/inbox", params={"status": "all", "limit": 1000}).json()["events"]
    return events


def became(client: httpx.Client, event_id: str) -> dict[str, Any]:
    """`GET /events/{id}`, once dedup and projection have come past it."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        answer = client.get(f"/events/{event_id}")
        found[:] = [answer.json()]
        return answer.status_code == 200 and found[0]["status"] != "pending"

    until(look, SETTLED_WITHIN_S, f"the judgement on {event_id}", 0.1)
    return found[0]


def settled(system: System, client: httpx.Client, tenant: Tenant) -> list[Ingested]:
    """The records of the organization, each of them judged. Nothing is on its way any more that could become another row."""
    records = in_the_log(system.settings, tenant)
    for event_id in {record.id for record in records}:
        became(client, event_id)
    return records
