"""What an endpoint's failures add up to: since when it fails, when its organization is told, when it is disabled.

Written to Postgres at the first failure after a success and at the first success after a failure, at most once a minute each, never
per attempt. Each telling comes before the write that makes it final, so a crash between the two tells it again, as the same event.
"""

from __future__ import annotations

from typing import Final, get_args

from delivery import operational
from delivery.context import Context
from delivery.endpoints import Absent
from delivery.gates import Gate, Verdict
from delivery.outbox import Outbox
from runtime.metrics import BREAKERS, ENDPOINT_CHANGES
from runtime.telemetry import log
from schemas import codec
from schemas.deliveries import Attempted
from schemas.events import Ingested, is_reserved
from schemas.topics import EVENTS_INGESTED

#: An endpoint that fails now and then is not noted down more often than this.
_NOTE_EVERY_MS: Final = 60_000
#: What is told again within this time of its happening is the same event, which dedup drops: an hour less than its window.
_TOLD_AGAIN_MS: Final = 23 * 3_600_000


class Health:
    """Of the endpoints of one partition. All state is in their gates."""

    def __init__(self, context: Context, outbox: Outbox) -> None:
        self._context = context
        self._outbox = outbox

    async def learn(self, gate: Gate, event_type: str, made: Attempted, verdict: Verdict) -> None:
        """After an attempt is journalled. Failures of delivering an operational event are counted and told to nobody.

        Those of a replay are not counted.
        """
        if verdict.opened or verdict.closed:
            change = "opened" if verdict.opened else "closed"
            BREAKERS.labels(change).inc()
            log.info("breaker", endpoint_id=made.endpoint_id, change=change)
        if made.outcome == "delivered":
            await self._succeeded(gate, made)
        elif made.error not in get_args(Absent) and made.next is not None and made.cause != "replay":
            await self._failed(gate, event_type, made, verdict)

    async def gone(self, event_type: str, made: Attempted) -> None:
        """410: disabled at once. Done again after a crash, it changes nothing more."""
        await self._tell(event_type, operational.disabled(made, "gone", made.started_at_ms))
        if await self._context.endpoints.disable_gone(made.endpoint_id):
            ENDPOINT_CHANGES.labels("disabled").inc()

    async def announce(self, gate: Gate, event_type: str, made: Attempted) -> None:
        """Its organization is told that it fails: once until it has recovered."""
        since_ms = gate.failing_since_ms
        if since_ms is None:
            return
        # An earlier owner noted the first failure, and may have gone before it told of it.
        perhaps_not_told = gate.inherited and self._context.clock.now_ms() - since_ms < _TOLD_AGAIN_MS
        if not gate.announced or perhaps_not_told:
            gate.announced, gate.inherited = True, False
            await self._tell(event_type, operational.failing(made, since_ms))
            ENDPOINT_CHANGES.labels("failing").inc()

    async def _succeeded(self, gate: Gate, made: Attempted) -> None:
        since_ms = gate.failing_since_ms
        if since_ms is None:
            return
        gate.failing_since_ms, announced, gate.announced, gate.inherited = None, gate.announced, False, False
        if announced:
            await self._tell("", operational.recovered(made, since_ms))
            ENDPOINT_CHANGES.labels("recovered").inc()
        if gate.noted:
            gate.noted = False
            await self._context.endpoints.note_recovered(made.endpoint_id)

    async def _failed(self, gate: Gate, event_type: str, made: Attempted, verdict: Verdict) -> None:
        if gate.failing_since_ms is None:
            gate.failing_since_ms = made.started_at_ms
        now_ms = self._context.clock.now_ms()
        due = gate.noted_at_ms is None or now_ms - gate.noted_at_ms >= _NOTE_EVERY_MS
        if not gate.noted and (due or verdict.opened):
            gate.noted, gate.noted_at_ms = True, now_ms
            await self._context.endpoints.note_failing(made.endpoint_id, gate.failing_since_ms)
        since_ms = gate.failing_since_ms
        if since_ms is None:
            return  # another attempt succeeded meanwhile
        if verdict.opened:
            await self.announce(gate, event_type, made)
        before_ms = now_ms - round(self._context.settings.disable_after_s * 1000)
        if since_ms <= before_ms:
            await self._disable(gate, event_type, made, since_ms, before_ms)

    async def _disable(self, gate: Gate, event_type: str, made: Attempted, since_ms: int, before_ms: int) -> None:
        if await self._context.endpoints.fails_since(made.endpoint_id, before_ms):
            await self._tell(event_type, operational.disabled(made, "failing", since_ms))
            if await self._context.endpoints.disable_failing(made.endpoint_id, before_ms):
                ENDPOINT_CHANGES.labels("disabled").inc()
        # Disabled now, or enabled again by somebody: what comes after begins anew.
        gate.failing_since_ms, gate.noted_at_ms = None, None
        gate.announced = gate.noted = gate.inherited = False

    async def _tell(self, event_type: str, told: Ingested) -> None:
        if not is_reserved(event_type):
            await self._outbox.send(EVENTS_INGESTED, codec.encode(told), told, ())
