"""What OpenAPI shows of replays."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from access.endpoint_docs import ENDPOINT_ID, EXAMPLE_ID
from access.openapi import TEXT, TIME, Responses, Schema, answered, header, many, nullable, record, record_of, sent
from access.replay_bodies import NewReplay, ReplayChange
from schemas import ids
from schemas.events import MODES

_ID: Final = "rnd_01a20b40-4000-7000-8000-000000000009"
_ORGANIZATION: Final = "org_01a20b40-1000-7000-8000-000000000001"
_SKIPPED: Final[dict[str, Any]] = {"endpoint_id": "ep_01a20b40-3000-7000-8000-000000000008", "why": "disabled"}
_RANGE: Final[dict[str, Any]] = {
    "organization": _ORGANIZATION, "mode": "live", "event_types": ["order.*"], "since": "2026-11-24T02:00:00.000Z", "until": None,
    "from_position": 10_200, "until_position": 48_000,
}  # fmt: skip
_REPLAY: Final[dict[str, Any]] = {
    "id": _ID, "state": "running", **_RANGE, "rate_per_s": 50.0, "created_at": "2026-11-25T09:12:00.020Z",
    "changed_at": "2026-11-25T09:12:00.020Z",
    "endpoints": [{"endpoint_id": EXAMPLE_ID, "state": "running", "expected": None, "begun": 1_200, "next_position": 14_031}],
    "skipped": [_SKIPPED],
}  # fmt: skip

_POSITION: Final[Schema] = {"type": "integer", "minimum": 0, "description": "An offset of the organization's partition of events.accepted."}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_RANGE_MEMBERS: Final[dict[str, Schema]] = {
    "organization": {"type": "string", "pattern": ids.ORGANIZATION_ID_PATTERN},
    "mode": {"type": "string", "enum": list(MODES)},
    "event_types": {"type": ["array", "null"], "items": TEXT, "description": "null: all."},
    "since": nullable(TIME),
    "until": nullable(TIME),
    "from_position": _POSITION,
    "until_position": {**_POSITION, "description": "The first that is not read; what is accepted later is not replayed."},
}
_SKIPPED_SCHEMA: Final[Schema] = many(
    record("SkippedEndpoint", endpoint_id=ENDPOINT_ID, why={"type": "string", "enum": ["disabled", "fifo"]})
)
_PART: Final[Schema] = record(
    "ReplayEndpoint",
    endpoint_id=ENDPOINT_ID,
    state={
        "type": "string",
        "enum": ["running", "paused", "waiting", "done", "cancelled", "endpoint_missing", "log_missing"],
        "description": "`waiting`: nothing in the log asks for the next page yet; resuming the replay does. `endpoint_missing`: it was "
        "deleted or disabled. `log_missing`: the log does not hold the next position any more.",
    },
    expected=nullable({**_COUNT, "description": "As counted before it was started; null: it was not."}),
    begun={**_COUNT, "description": "Deliveries with a first attempt."},
    next_position=_POSITION,
)
_REPLAY_SCHEMA: Final[Schema] = record_of(
    "Replay",
    {
        "id": {"type": "string", "pattern": ids.ROUND_ID_PATTERN, "description": "The round of its deliveries."},
        "state": {"type": "string", "enum": ["running", "paused", "cancelled", "done"]},
        **_RANGE_MEMBERS,
        "rate_per_s": {"type": "number", "description": "Deliveries a second to each endpoint."},
        "created_at": TIME,
        "changed_at": TIME,
        "endpoints": many(_PART),
        "skipped": _SKIPPED_SCHEMA,
    },
)
_DRY: Final[dict[str, Any]] = {
    **_RANGE, "dry_run": True, "events": 21_377,
    "endpoints": [{"endpoint_id": EXAMPLE_ID, "url": "https://shop.example/webhooks", "deliveries": 21_377}], "skipped": [_SKIPPED],
}  # fmt: skip
_COUNTED: Final[Schema] = record_of(
    "ReplayDryRun",
    {
        **_RANGE_MEMBERS,
        "dry_run": {"type": "boolean", "const": True},
        "events": _COUNT,
        "endpoints": many(record("ReplayDeliveries", endpoint_id=ENDPOINT_ID, url=TEXT, deliveries=_COUNT)),
        "skipped": _SKIPPED_SCHEMA,
    },
)
_HEADERS: Final = {"Location": header({"type": "string", "format": "uri-reference"}, "Where it can be read.", f"/operator/replays/{_ID}")}

STARTED: Final[Responses] = {
    **answered(200, "A dry run: what it would deliver.", _COUNTED, dry_run=_DRY),
    **answered(202, "It has begun.", _REPLAY_SCHEMA, headers=_HEADERS, started=_REPLAY),
}
REPLAY: Final[Responses] = answered(200, "The replay as it is now.", _REPLAY_SCHEMA, found=_REPLAY)
REPLAYS: Final[Responses] = answered(
    200, "A page, newest first.",
    record("Replays", replays=many(_REPLAY_SCHEMA), next_before=nullable({**TEXT, "description": "The next `before`."})),
    last_page={"replays": [_REPLAY], "next_before": None},
)  # fmt: skip


def _taken(kind: type[msgspec.Struct], **examples: Any) -> dict[str, Any]:
    return sent({**msgspec.json.schema(kind)["$defs"][kind.__name__], "title": kind.__name__}, **examples)


TAKES_REPLAY: Final = _taken(
    NewReplay,
    dry_run={"organization": _ORGANIZATION, "event_types": ["order.*"], "since": "2026-11-24T02:00:00Z", "dry_run": True},
    to_one_endpoint={
        "organization": _ORGANIZATION, "endpoint_id": EXAMPLE_ID, "from_position": 10_200, "until_position": 48_000, "rate_per_s": 20.0,
    },
)  # fmt: skip
TAKES_CHANGE: Final = _taken(ReplayChange, paused={"state": "paused"}, resumed_slowly={"state": "running", "rate_per_s": 5.0})
