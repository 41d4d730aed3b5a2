"""`POST /events` and `POST /events/batch`: from a request to events in the log, and what the caller is told."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import msgspec

from access.http import Context
from access.times import rfc3339
from ingest import formats
from ingest.admission import Admission, Admitted
from ingest.batches import BatchAdmission, Outcome
from ingest.begun import Begun
from ingest.bodies import body_at_hand, read_body
from ingest.caller import Caller
from ingest.edge import JSON, Endpoint, Receive, Reply, Scope, log_append, log_refusal, too_slow_body, with_outcome
from runtime.clock import Clock
from runtime.settings import IngestSettings

_encoder: Final = msgspec.json.Encoder()


class PostEvents(Endpoint):
    """One event."""

    route = "POST /events"

    def __init__(self, settings: IngestSettings, clock: Clock, admission: Admission) -> None:
        super().__init__(clock, admission)
        self.deadline_s = settings.request_deadline_s
        self._payload_bytes_max = settings.payload_bytes_max
        self._body_bytes_max = settings.payload_bytes_max + settings.body_overhead_bytes_max
        self._window_s = int(settings.idempotency_window_s)
        self._too_large = (
            f"A payload may have {self._payload_bytes_max} bytes, the whole body {self._body_bytes_max}. Send a reference to it."
        )

    async def reply(self, caller: Caller, scope: Scope, receive: Receive, began_s: float) -> Reply:
        headers = scope["headers"]
        shape = formats.shape_of(headers)
        body = body_at_hand(scope, shape.coding, bytes_max=self._body_bytes_max, what=self._too_large)
        if body is None:
            with caller.within(too_slow_body):
                body = await read_body(headers, receive, shape.coding, bytes_max=self._body_bytes_max, what=self._too_large)
        draft = formats.one(body, headers, shape, payload_bytes_max=self._payload_bytes_max)
        return self._appended(await self.admission.one(caller, draft), caller, began_s)

    async def resume(self, caller: Caller, begun: Begun) -> Reply:
        return self._appended(await self.admission.go_on(caller, begun), caller, begun.began_s)

    def _appended(self, admitted: Admitted, caller: Caller, began_s: float) -> Reply:
        log_append(admitted, caller.context, self.clock.monotonic_s() - began_s)
        return self.created(admitted)

    def created(self, admitted: Admitted) -> Reply:
        """The answer of an event that is in the log."""
        document = _created(admitted, self._window_s)
        return Reply(201, _encoder.encode(document), {"Content-Type": JSON, "Location": f"/events/{admitted.event.id}"})


class PostBatch(Endpoint):
    """Up to `formats.ITEMS_MAX` events, each with an answer of its own."""

    route = "POST /events/batch"

    def __init__(self, settings: IngestSettings, clock: Clock, admission: BatchAdmission) -> None:
        super().__init__(clock, admission)
        self._batches = admission
        self.deadline_s = settings.batch_deadline_s
        self._payload_bytes_max = settings.payload_bytes_max
        self._item_bytes_max = settings.payload_bytes_max + settings.body_overhead_bytes_max
        self._body_bytes_max = settings.batch_bytes_max
        self._window_s = int(settings.idempotency_window_s)
        self._too_large = f"A batch may have {self._body_bytes_max} bytes. Send it in parts; nothing of it was appended."

    async def reply(self, caller: Caller, scope: Scope, receive: Receive, began_s: float) -> Reply:
        headers = scope["headers"]
        batch_format, coding = formats.batch_format_of(headers), formats.coding_of(headers)
        with caller.within(too_slow_body):
            body = await read_body(headers, receive, coding, bytes_max=self._body_bytes_max, what=self._too_large)
        items = formats.items_of(body, batch_format)
        read = partial(
            formats.item,
            batch_format=batch_format,
            payload_bytes_max=self._payload_bytes_max,
            body_bytes_max=self._item_bytes_max,
        )
        outcomes = await self._batches.many(caller, items, read)
        duration_s = self.clock.monotonic_s() - began_s
        results = [self._result(place, outcome, caller.context, duration_s) for place, outcome in enumerate(outcomes)]
        appended = sum(isinstance(outcome, Admitted) for outcome in outcomes)
        document = {"appended": appended, "refused": len(outcomes) - appended, "results": results}
        return Reply(200, _encoder.encode(document), {"Content-Type": JSON})

    def _result(self, place: int, outcome: Outcome, context: Context, duration_s: float) -> dict[str, Any]:
        if isinstance(outcome, Admitted):
            log_append(outcome, context, duration_s)
            return {"index": place, "status": 201, "event": _created(outcome, self._window_s)}
        problem = with_outcome(outcome)
        log_refusal(problem, context, duration_s)
        result: dict[str, Any] = {"index": place, "status": problem.problem.status, "problem": problem.document(context.request_id)}
        if (retry_after := problem.headers.get("Retry-After")) is not None:
            result["retry_after_s"] = int(retry_after)
        return result


def _created(admitted: Admitted, window_s: int) -> dict[str, Any]:
    event = admitted.event
    document: dict[str, Any] = {"id": event.id, "status": "pending", "received_at": rfc3339(event.received_at_ms)}
    if event.dedup_key is not None:
        document["idempotency_window_s"] = window_s
    return document
