"""Load for the crash tests: each organization has one writer that posts numbered events one after another, until each is certain.

A writer asks again under the same idempotency key after anything that is no certain answer, as a producer should. One event in eight has
no key and is posted once, whatever comes of it. Every answer is kept, so that the checkers can hold the system to each of them.
"""

from __future__ import annotations

import json
import random
import threading
import time
from dataclasses import dataclass, field

import httpx

from schemas.ids import EventId

_PAUSE_S = 0.08
_RETRY_PAUSE_S = 0.2
_TIMEOUT_S = 10.0
_KEYLESS_SHARE = 1 / 8


@dataclass
class Posted:
    """One numbered event of one organization: the ids it was given by 201 and named by 409, in the order of the answers.

    `uncertain` counts answers that left open whether it is in the log.
    """

    number: int
    created: list[EventId] = field(default_factory=list)
    named: list[EventId] = field(default_factory=list)
    uncertain: int = 0

    @property
    def certain(self) -> bool:
        return bool(self.created or self.named)

    @property
    def body(self) -> bytes:
        # Spaces and a float that a parser would tidy: the bytes must come back as they are.
        return b'{ "number" : %d.0,  "text": "\xc5\xbc" }' % self.number


class Writer(threading.Thread):
    """Posts events of one organization until stopped. One in ten is posted a second time on purpose."""

    def __init__(self, url: str, name: str, key: str, seed: int) -> None:
        super().__init__(name=f"writer-{name}", daemon=True)
        self.organization = name
        self.key = key
        self.posted: list[Posted] = []
        self._random = random.Random(seed)
        self._stop_asked = threading.Event()
        self._client = httpx.Client(base_url=url, headers={"X-API-Key": key, "Content-Type": "application/json"}, timeout=_TIMEOUT_S)
        self.failure: BaseException | None = None

    @property
    def certain(self) -> list[Posted]:
        return [event for event in self.posted if event.certain]

    def stop(self) -> None:
        self._stop_asked.set()

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                event = Posted(len(self.posted))
                self.posted.append(event)
                if self._random.random() < _KEYLESS_SHARE:
                    self._ask(event, b'{"type":"chaos.number","payload":%b}' % event.body)
                else:
                    self._post(event)
                    if self._random.random() < 0.1:
                        self._post(event)
                self._stop_asked.wait(_PAUSE_S)
        except BaseException as error:  # shown by whoever joins this thread
            self.failure = error
            raise
        finally:
            self._client.close()

    def _post(self, event: Posted) -> None:
        """Until 201 or 409."""
        content = b'{"type":"chaos.number","idempotency_key":"n-%d","payload":%b}' % (event.number, event.body)
        deadline_s = time.monotonic() + 120
        while not self._ask(event, content):
            if time.monotonic() > deadline_s:
                raise AssertionError(f"event {event.number} of {self.organization} found no certain answer within 120 s")
            time.sleep(_RETRY_PAUSE_S)

    def _ask(self, event: Posted, content: bytes) -> bool:
        """Whether the answer was certain. What must never happen raises at once."""
        try:
            answer = self._client.post("/events", content=content)
        except httpx.TransportError:
            event.uncertain += 1
            return False
        if answer.status_code == 201:
            event.created.append(answer.json()["id"])
            return True
        if answer.status_code == 409 and answer.json()["type"].endswith("duplicate-event"):
            event.named.append(answer.json()["id"])
            return True
        if answer.status_code == 409:
            return False  # another request with this key is under way: a lease of a process that died, or our own
        outcome = json.loads(answer.text).get("outcome") if answer.status_code == 503 else None
        if outcome not in ("not_appended", "unknown"):
            raise AssertionError(f"POST /events answered {answer.status_code}: {answer.text}")
        event.uncertain += outcome == "unknown"
        return False
