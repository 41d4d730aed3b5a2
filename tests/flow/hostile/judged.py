"""How a bad input is judged, whatever it is, and what was kept of a good one: the bytes that come back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from tests.flow.raw import (
    Header,
    RawAnswer,
    RawConnection,
    assert_honest_works,
    assert_problem,
    event_bytes,
    nothing_appended,
    request_bytes,
)
from triggers.provision import Tenant
from triggers.system import System, until

#: A refusal says what to do; it does not send the request back.
_REFUSAL_BYTES_MAX: Final = 2_048
_GROWTH_BYTES_MAX: Final = 50 * 1024 * 1024


def assert_refused(system: System, key: str, sent: bytes, status: int, slug: str, **members: Any) -> dict[str, Any]:
    """`sent` is answered with this problem, appends nothing, and the next request of the same caller is served. The problem's document."""
    with RawConnection(system.settings) as connection:
        with nothing_appended(system.settings):
            connection.send(sent)
            answer = connection.answer()
            document = assert_problem(answer, status, slug)
            assert len(answer.body) < _REFUSAL_BYTES_MAX
            assert {name: document.get(name) for name in members} == members
        if not answer.closed:
            connection.send(event_bytes(key))
            assert connection.answer().status == 201
            return document
    assert_honest_works(system, key)
    return document


@contextmanager
def little_memory(system: System) -> Iterator[None]:
    """At no moment of the block does the API hold much more memory than before it (RELIABILITY I23)."""
    process = Path(f"/proc/{system.supervisor.pid('api')}")
    (process / "clear_refs").write_text("5")  # the highest so far is what there is now: proc(5)
    before = _highest_bytes(process)
    yield
    assert _highest_bytes(process) - before < _GROWTH_BYTES_MAX


def _highest_bytes(process: Path) -> int:
    return int((process / "status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


class Kept(NamedTuple):
    """An event as its reader gets it. `fields` are the members of its inbox item, each as the bytes that were sent."""

    event: dict[str, Any]
    fields: dict[str, bytes]

    @property
    def payload(self) -> bytes:
        return self.fields["payload"]


class Caller:
    """One caller on a connection that it keeps. It opens another when the server has ended it."""

    def __init__(self, system: System, key: str) -> None:
        self._system = system
        self._key = key
        self._connection: RawConnection | None = None

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.socket.close()

    def send(self, sent: bytes) -> RawAnswer:
        if self._connection is None:
            self._connection = RawConnection(self._system.settings)
        self._connection.send(sent)
        answer = self._connection.answer()
        if answer.closed:
            self._connection.socket.close()
            self._connection = None
        return answer

    def post(self, body: bytes, *headers: Header) -> RawAnswer:
        """`POST /events` of JSON."""
        return self.send(event_bytes(self._key, headers=headers, body=body))

    def get(self, target: str) -> RawAnswer:
        return self.send(request_bytes("GET", target, [("X-API-Key", self._key)]))

    def accepted(self, answer: RawAnswer) -> Kept:
        """What became of an event that was answered 201: accepted, and the same bytes in every place that shows it."""
        assert answer.status == 201, answer.body[:300]
        event_id = answer.document["id"]
        until(lambda: self.status(event_id) == "accepted", 30, "the event being accepted", 0.05)
        event = self.get(f"/events/{event_id}").document
        kept = Kept(event, self.inbox()[event_id])
        raw = kept.fields.get("payload") or kept.fields["data_base64"]
        assert (event["payload_bytes"], event["payload_sha256"]) == (len(raw), hashlib.sha256(raw).hexdigest())
        return kept

    def status(self, event_id: str) -> str | None:
        document: dict[str, Any] = self.get(f"/events/{event_id}").document
        status = document.get("status")
        return status if isinstance(status, str) else None

    def inbox(self) -> dict[str, dict[str, bytes]]:
        """Every event of the inbox by its id: the members of its item as bytes."""
        page = msgspec.json.decode(self.get("/inbox?status=all&limit=1000").body, type=dict[str, msgspec.Raw])
        items = msgspec.json.decode(page["events"], type=list[dict[str, msgspec.Raw]])
        return {json.loads(bytes(item["id"])): {name: bytes(value) for name, value in item.items()} for item in items}


def native(payload: bytes, more: bytes = b"", event_type: bytes = b'"a.b"') -> bytes:
    """A native event around a payload; `more` are further members with their comma."""
    return b'{"type":%b,"payload":%b%b}' % (event_type, payload, more)


def posted(tenant: Tenant, body: bytes, *headers: Header) -> bytes:
    return event_bytes(tenant.key, headers=headers, body=body)
