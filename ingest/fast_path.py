"""The fast path of an event: from a whole request to its answer in callbacks, without a task, a future or an ASGI call of its own.

Most events need nothing but one round trip to Redis and the append, and for them those cost as much as the work (docs/adr/0020). What is
not plain goes the general way (`ingest.edge`, `ingest.admission`): from its beginning where nothing was asked yet, else from where it
stands (`ingest.begun`). So nothing is refused here, and every rule but the plain case is written once, there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, cast

from access.auth import Authenticator, Principal
from access.http import Context, context_of
from access.limits import Allowance, Limiter, rate_lines
from ingest.accept import native
from ingest.admission import SCOPE, Admitted, appended, reserved, told
from ingest.append import Appender, unknown
from ingest.arrivals import Arrival, arrival_of, record_headers
from ingest.begun import BEGUN, Begun
from ingest.catalogue import Catalogue
from ingest.connection import Cycle
from ingest.edge import log_append
from ingest.formats import idempotency_key_of
from ingest.idempotency import Reservation, Reservations
from ingest.routes import PostEvents
from runtime.clock import Clock
from runtime.deadlines import Deadlines, Step
from runtime.kafka import Report
from runtime.metrics import RESERVATIONS
from runtime.randomness import Randomness
from runtime.redis import RedisTick
from runtime.settings import IngestSettings
from schemas import codec
from schemas.problems import ProblemError

_PATH: Final = "/events"
#: Headers with rules of their own: a coded body, a page of another site. Those of CloudEvents begin with `ce-`.
_SPECIAL: Final = frozenset({b"content-encoding", b"origin"})
_CLOUDEVENT: Final = b"\nce-"
_JSON: Final = b"application/json"

_reservations: Final = RESERVATIONS.tally


class FastPath:
    """Called with each whole request: takes it, or says False and has done nothing about it."""

    def __init__(
        self,
        settings: IngestSettings,
        clock: Clock,
        endpoint: PostEvents,
        authenticator: Authenticator,
        limiter: Limiter,
        catalogue: Catalogue,
        reservations: Reservations,
        appender: Appender,
        tick: RedisTick,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> None:
        """`headers` are those of every answer."""
        self.clock = clock
        self.endpoint = endpoint
        self.authenticator = authenticator
        self.limiter = limiter
        self.reservations = reservations
        self.appender = appender
        self.deadlines = Deadlines()
        self._deadline_s = settings.request_deadline_s
        self._payload_bytes_max = settings.payload_bytes_max
        self._body_bytes_max = settings.payload_bytes_max + settings.body_overhead_bytes_max
        self._catalogue = catalogue
        self._tick = tick
        self._random = Randomness()
        self._head = b"HTTP/1.1 201 Created\r\n" + b"".join(b"%b: %b\r\n" % one for one in ((b"content-type", _JSON), *headers))

    def __call__(self, cycle: Cycle) -> bool:
        scope: Any = cycle.scope
        if scope["path"] != _PATH or scope["method"] != "POST" or len(cycle.body) > self._body_bytes_max or not self._tick.connected:
            return False
        headers = scope["headers"]
        named = dict(headers)
        if len(named) != len(headers) or named.get(b"content-type") != _JSON or not _SPECIAL.isdisjoint(named):
            return False
        key = named.get(b"x-api-key")
        if key is None or _CLOUDEVENT in b"\n".join((b"", *named)):
            return False
        began_s = self.clock.monotonic_s()
        principal = self.authenticator.at_hand(key)
        if principal is None or principal.encryption or SCOPE not in principal.scopes:
            return False
        validators = self._catalogue.known(principal.organization, principal.mode)
        if validators is None:
            return False
        try:
            header_key = idempotency_key_of(headers) if b"idempotency-key" in named else None
            draft = native(bytes(cycle.body), header_key, payload_bytes_max=self._payload_bytes_max)
        except ProblemError:
            return False  # the general way finds it again, counts it and says it
        if validators.has(draft.type):
            return False
        arrival = arrival_of(principal, draft, self.clock.now_ms(), self._random, self.authenticator.changes)
        deadline_s = asyncio.get_running_loop().time() + self._deadline_s
        context = context_of(headers, self.clock)
        return FastEvent(self, cycle, key, principal, arrival, context, began_s, deadline_s).ask()

    def head(self, event_id: str, request_id: str, allowance: Allowance, length: int) -> bytes:
        """Of the answer 201. Ids hold nothing that a header may not."""
        own = b"location: /events/%b\r\nx-request-id: %b\r\ncontent-length: %d\r\n" % (event_id.encode(), request_id.encode(), length)
        return b"".join((self._head, own, rate_lines(allowance)))


class FastEvent(Begun):
    """One event on the fast path. What Redis, the producer and the deadlines call never raises."""

    __slots__ = ("_cycle", "_due", "_ended", "_path", "_waiting")

    def __init__(
        self,
        path: FastPath,
        cycle: Cycle,
        key: bytes,
        principal: Principal,
        arrival: Arrival,
        context: Context,
        began_s: float,
        deadline_s: float,
    ) -> None:
        super().__init__(key, principal, arrival, context, began_s, deadline_s)
        self._path = path
        self._cycle = cycle
        #: Answers of Redis that have yet to come.
        self._waiting = 2
        #: Answered or handed over.
        self._ended = False
        self._due: set[Step] | None = None

    def ask(self) -> bool:
        """Begin. False, and nothing was asked, for a quota that is used up."""
        path, arrival = self._path, self.arrival
        if not path.limiter.ask_for(self.principal, self.allowed):
            return False
        path.authenticator.used(self.principal)
        if arrival.name is None:
            self._waiting = 1
        else:
            event = arrival.event
            arrival.asking()
            path.reservations.ask(arrival.name, event.id, event.fingerprint, arrival.owner, self.held)
        self._tasks.add(self)
        return True

    def allowed(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self._answered()

    def held(self, held: Reservation | None) -> None:
        self.arrival.answered(held)
        _reservations["without_redis" if held is None else held.outcome] += 1
        self._answered()

    def _answered(self) -> None:
        self._waiting -= 1
        if self._waiting or self._ended:
            return
        held = self.arrival.held
        try:
            plain = self.allowance is not None and self.allowance.granted and (held is None or held.outcome == "reserved")
            if plain and self.arrival.checked == self._path.authenticator.changes:
                self._append()
            else:
                self._hand_over()
        except Exception as error:  # noqa: BLE001 - the general way answers it, and nobody else's answer is lost here
            self._hand_over(error)

    def _append(self) -> None:
        path, event = self._path, self.arrival.event
        reserved(self.arrival)
        path.appender.post(event.organization, codec.encode(event), record_headers(event, self.context), self.reported)
        self._due = path.deadlines.add(self, self.deadline_s)

    def reported(self, report: Any) -> None:
        """By the producer."""
        error = self._path.appender.outcome(report)
        if self._ended:
            return
        if error is not None:
            self._hand_over(error)
            return
        try:
            self._appended(report)
        except Exception as failure:  # noqa: BLE001 - as above
            if not self._ended:  # else the answer is out, and a second one would be taken for that of the next request
                self._hand_over(failure)

    def _appended(self, report: Report) -> None:
        path, event, name = self._path, self.arrival.event, self.arrival.name
        self.report = report
        if name is not None:
            appended()
            path.reservations.confirm(name, event.id, event.fingerprint, report.timestamp_ms, told)
        reply = path.endpoint.created(Admitted(event, report))
        if self.allowance is None or not self._cycle.answer(
            path.head(event.id, self.context.request_id, self.allowance, len(reply.body)), reply.body
        ):
            self._hand_over()
            return
        self._end()
        duration_s = path.clock.monotonic_s() - self.began_s
        log_append(Admitted(event, report), self.context, duration_s)
        path.endpoint.count(201, duration_s)

    def expire(self) -> None:
        """By the deadlines: what was sent cannot be taken back."""
        if not self._ended:
            self._hand_over(unknown())

    def cancel(self, msg: Any = None) -> None:
        """By uvicorn, to which this is one of its tasks: the server stops, and has waited as long as it waits. It goes through its tasks
        meanwhile, so there may be no new one before it is done."""
        asyncio.get_running_loop().call_soon(self.expire)

    def _hand_over(self, error: Exception | None = None) -> None:
        self._end()
        self.error = error
        self._cycle.scope[BEGUN] = self
        self._cycle.connection.start_task(self._cycle)

    def _end(self) -> None:
        self._ended = True
        self._tasks.discard(self)
        if self._due is not None:
            self._due.discard(self)

    @property
    def _tasks(self) -> set[Any]:
        """Where uvicorn keeps what it waits for before it stops, and what `requests_max` counts."""
        return cast(set[Any], self._cycle.connection.tasks)
