"""A trail as a document: what each stage made of an event, in the order in which it happened. Pure; times are RFC 3339."""

from __future__ import annotations

from typing import Any

from access.envelopes import response_key
from access.times import iso
from projections.explain import Explained
from projections.trail import Accepted, At, Trail
from schemas.deliveries import Attempted, Dead, Retry
from schemas.ids import event_time_ms
from schemas.topics import EVENTS_INGESTED


def document(told: Explained) -> dict[str, Any]:
    """For scripts, and what the lines for people are made from. Members that nothing is known of are null or empty, never left out."""
    trail = told.trail
    return {
        "id": trail.event_id,
        "status": status(trail),
        "organization": trail.organization,
        "mode": trail.mode,
        "trace_id": trail.trace_id,
        "request_id": trail.request_id,
        "event": None if trail.about is None else {
            **{name: value for name, value in trail.about._asdict().items() if name != "received_at_ms"},
            "received_at": iso(trail.about.received_at_ms),
            "erased": told.erased,
        },
        "ingested": [{**_at(at), "appended_at": iso(ms), "verdict": _verdict(trail, at)} for at, ms in sorted(trail.copies.items())],
        "accepted": None if trail.accepted is None else _at(trail.accepted.at),
        "lost_to": None if trail.lost is None else {
            "kind": trail.lost.kind, "original_id": trail.lost.original_id, "at": None if trail.lost.at is None else _at(trail.lost.at),
        },
        "rejected": [
            {**_at(one.at), "of": _at(one.origin), "reason": one.reason, "detail": one.detail} for _, one in sorted(trail.rejected.items())
        ],
        "inbox": None if trail.accepted is None else _position(trail.accepted, told.generation),
        "ack": None if trail.ack is None else {**_at(trail.ack.at), "acked_at": iso(trail.ack.acked_at_ms)},
        "plan": None if trail.plan is None else {
            **_at(trail.plan.at), "endpoint_ids": list(trail.plan.endpoint_ids), "held": list(trail.plan.held),
        },
        "retention": None if not told.taken or told.kept_from is None else {"kept_from": iso(event_time_ms(told.kept_from))},
        "deliveries": [_delivery(trail, endpoint) for endpoint in trail.endpoints()],
        "source": {
            "folds": told.folds or "read",
            "log": told.log or "read",
            "whole": told.whole,
            "spans": [span._asdict() for span in told.spans],
        },
    }  # fmt: skip


def _position(accepted: Accepted, generation: int) -> dict[str, int]:
    """In the inbox: where it was accepted first."""
    if (first := accepted.first) is not None:
        return {"generation": first.generation, "partition": first.partition, "offset": first.offset}
    return {"generation": generation, "partition": accepted.at.partition, "offset": accepted.at.offset}


def status(trail: Trail) -> str:
    """`accepted`, `duplicate`, `conflict`, `rejected`; `pending` while dedup has not come to it; `unknown` without a trace of it."""
    if trail.accepted is not None:
        return "accepted"
    if trail.lost is not None:
        return trail.lost.kind
    if any(one.origin.topic == EVENTS_INGESTED for one in trail.rejected.values()):
        return "rejected"
    return "pending" if trail.copies else "unknown"


def _at(at: At) -> dict[str, Any]:
    return at._asdict()


def _verdict(trail: Trail, at: At) -> str:
    """What dedup made of one ingested record. `retried`: the API appended the same event again, and that copy has no effect."""
    if any(one.origin == at for one in trail.rejected.values()):
        return "rejected"
    if trail.accepted is not None:
        if trail.accepted.ingested_offset == at.offset:
            return "first"
        return "retried" if at.offset > trail.accepted.ingested_offset else "unknown"
    if trail.lost is not None and at.offset >= trail.lost.ingested_offset:
        return trail.lost.kind
    return "pending"


def _delivery(trail: Trail, endpoint_id: str) -> dict[str, Any]:
    made, last_round = trail.made(endpoint_id), trail.last_round(endpoint_id)
    of_last = [one for _, one in trail.made(endpoint_id, last_round)]
    letters = sorted(at for at, letter in trail.dead.items() if (letter.endpoint_id, letter.round) == (endpoint_id, last_round))
    state = "delivered" if any(one.outcome == "delivered" for _, one in made) else state_of(of_last)
    return {
        "endpoint_id": endpoint_id,
        "state": state,
        "rounds": [
            {**_at(at), "round": one.round, "cause": one.cause}
            for at, one in sorted(trail.rounds.items())
            if one.endpoint_id == endpoint_id
        ],
        "attempts": [_attempt(at, one) for at, one in made],
        "next": _next(trail, endpoint_id, last_round, of_last) if state in ("planned", "retrying") else None,
        "dead_letter": _at(letters[0]) if letters else None,
    }


def state_of(made: list[Attempted]) -> str:
    """Of one round: `planned` before its first attempt, `delivered`, `dead`, or `retrying`. Success is final."""
    if not made:
        return "planned"
    if any(one.outcome == "delivered" for one in made):
        return "delivered"
    return "retrying" if isinstance(made[-1].next, Retry) else "dead"


def _attempt(at: At, one: Attempted) -> dict[str, Any]:
    """The beginning of an answer is base64, or sealed under its event's data key: nothing is opened here."""
    following, sealed = one.next, response_key(one.response) is not None
    return {
        **_at(at),
        "round": one.round or None,
        "cause": one.cause,
        "attempt": one.attempt,
        "outcome": one.outcome,
        "started_at": iso(one.started_at_ms),
        "duration_ms": one.duration_ms,
        "status": one.status,
        "error": one.error,
        "worker": one.worker,
        "response_base64": None if sealed else one.response,
        "response_sealed": one.response if sealed else None,
        "next": None if following is None else "retry" if isinstance(following, Retry) else "dead",
        "next_at": iso(following.not_before_ms) if isinstance(following, Retry) else None,
        "dead_reason": following.reason if isinstance(following, Dead) else None,
    }


def _next(trail: Trail, endpoint_id: str, of_round: str, made: list[Attempted]) -> dict[str, Any] | None:
    """The attempt to come. Its last stay on a delay topic says where it waits; before the first one the journal alone says when."""
    last = max(made, key=lambda one: one.attempt, default=None)
    following = None if last is None else last.next
    if last is None:
        number, due_ms = 1, None
    elif isinstance(following, Retry):
        number, due_ms = following.attempt, following.not_before_ms
    else:
        return None
    wanted = (endpoint_id, of_round, number)
    legs = [(task.hop, at, task) for at, task in trail.legs.items() if (task.endpoint_id, task.round, task.attempt) == wanted]
    if not legs:
        return {"attempt": number, "not_before": iso(due_ms), "waits_on": None, "hop": None, "put_off": 0}
    hop, at, task = max(legs, key=lambda leg: leg[:2])
    return {"attempt": number, "not_before": iso(task.not_before_ms), "waits_on": _at(at), "hop": hop, "put_off": task.parked}
