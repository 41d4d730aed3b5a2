"""The independent look at what a system has made of events: inboxes and histories over HTTP, journal and delay topics from offset 0."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping

import httpx
import msgspec

from schemas import codec
from schemas.deliveries import DeadLetter, JournalRecord
from schemas.events import is_reserved
from schemas.ids import EventId
from schemas.topics import DELIVERIES_ATTEMPTS, DELIVERIES_DEAD, retry_topic
from tests.chaos.checks import Hook, Leg, Row, check_deliveries, check_history, check_inbox, check_order, check_strangers, check_webhooks
from tests.chaos.workload import Writer
from tests.flow.topics import read_topic
from triggers.receiver import Receiver
from triggers.system import System

#: A page is asked for again this long: a server may only just have come back.
_ANSWER_S = 40.0


class _Item(msgspec.Struct):
    id: str
    type: str
    status: str
    payload: msgspec.Raw


class _Page(msgspec.Struct):
    events: list[_Item]
    next_cursor: str
    has_more: bool


_page = msgspec.json.Decoder(_Page)
_dead = msgspec.json.Decoder(DeadLetter)


class Look:
    """At one system and its writers. `endpoints`: organization → endpoint ids; `paths`: path of a receiver → endpoint id."""

    def __init__(
        self, system: System, receiver: Receiver, writers: list[Writer], endpoints: Mapping[str, list[str]], paths: Mapping[str, str]
    ) -> None:
        self._system = system
        self._receiver = receiver
        self._writers = writers
        self._endpoints = endpoints
        self._paths = paths

    def anomalies(self, copies_max: int, deaths: int) -> list[str]:
        found: list[str] = []
        inboxes, journal, legs = self.inboxes(), self.journal(), self.legs()
        hooks = self.hooks()
        for number, writer in enumerate(self._writers):
            rows = inboxes[writer.organization]
            ours = check_inbox(writer.posted, rows, self._explain(writer))
            endpoints = self._endpoints[writer.organization]
            ours += check_deliveries((row.event_id for row in rows), endpoints, journal, legs, copies_max=copies_max)
            ours += check_order((row.event_id for row in rows), [hook for hook in hooks if hook.path == f"/fifo/{number}"])
            found += [f"{writer.organization}: {one}" for one in ours]
        payloads = {row.event_id: row.payload for rows in inboxes.values() for row in rows}
        found += check_strangers(payloads, list(self._paths.values()), journal, legs, self.dead(), copies_max=copies_max)
        found += check_webhooks(payloads, hooks)
        found += check_history(hooks, self._paths, journal, self._system.settings.delivery.schedule_s, deaths=deaths)
        return found

    def inboxes(self) -> dict[str, list[Row]]:
        """Every inbox, walked by cursor in small pages."""
        return {writer.organization: [Row(item.id, bytes(item.payload)) for item in self._walk(writer.key, 97)] for writer in self._writers}

    def all_delivered(self) -> bool:
        """Or given up: whether that was right is checked."""
        return all(item.status in ("delivered", "failed") for writer in self._writers for item in self._walk(writer.key, 1000))

    def accepted(self, writer: Writer, event_id: str) -> bool:
        with self._client(writer.key) as client:
            return b'"accepted"' in self._get(client, f"/events/{event_id}", {})

    def hooks(self) -> list[Hook]:
        received = list(self._receiver.received)
        return [Hook(one.headers["webhook-id"], one.path, one.body, one.verified, one.at_s * 1000) for one in received]

    def journal(self) -> list[JournalRecord]:
        return [codec.journal.decode(value) for value in self._values(DELIVERIES_ATTEMPTS)]

    def dead(self) -> list[tuple[str, str]]:
        return [(letter.event_id, letter.endpoint_id) for letter in map(_dead.decode, self._values(DELIVERIES_DEAD))]

    def legs(self) -> list[Leg]:
        delays = self._system.settings.delivery.delays_s
        tasks = (codec.retry_task.decode(value) for delay in delays for value in self._values(retry_topic(delay)))
        return [Leg(task.event_id, task.endpoint_id, task.attempt, task.hop) for task in tasks]

    def _values(self, topic: str) -> list[bytes]:
        return [record.value or b"" for record in read_topic(self._system.settings, topic)]

    def _client(self, key: str) -> httpx.Client:
        return httpx.Client(base_url=self._system.url, headers={"X-API-Key": key}, timeout=10)

    def _walk(self, key: str, limit: int) -> Iterator[_Item]:
        cursor: str | None = None
        with self._client(key) as client:
            while True:
                params = {"status": "all", "limit": str(limit), **({"cursor": cursor} if cursor else {})}
                page = _page.decode(self._get(client, "/inbox", params))
                yield from (item for item in page.events if not is_reserved(item.type))  # what writers posted, not what we tell of it
                cursor = page.next_cursor
                if not page.has_more:
                    return

    @staticmethod
    def _get(client: httpx.Client, path: str, params: Mapping[str, str]) -> bytes:
        deadline_s = time.monotonic() + _ANSWER_S
        while True:
            try:
                answer = client.get(path, params=dict(params))
                if answer.status_code in (200, 404):
                    return answer.content
                if answer.status_code != 503:
                    raise AssertionError(f"GET {path} answered {answer.status_code}: {answer.text}")
            except httpx.TransportError:
                pass
            if time.monotonic() > deadline_s:
                raise AssertionError(f"GET {path} was not answered within {_ANSWER_S:g} s")
            time.sleep(0.2)

    def _explain(self, writer: Writer) -> dict[str, tuple[str, str | None]]:
        """Event id → (status, original) of every id that was ever answered."""
        told: dict[str, tuple[str, str | None]] = {}
        with self._client(writer.key) as client:
            ids: set[EventId] = {event_id for event in writer.posted for event_id in (*event.created, *event.named)}
            for event_id in ids:
                document = json.loads(self._get(client, f"/events/{event_id}", {}))
                told[event_id] = ("missing", None) if document["status"] == 404 else (document["status"], document.get("original_id"))
        return told
