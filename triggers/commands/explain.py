"""`triggers explain evt_…`: what happened to an event, stage by stage, and where in the log each stage says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
import typer

from access.times import parse_duration_s
from projections.explain import Explained
from projections.explain import explain as gather
from projections.story import document
from runtime.settings import Settings
from schemas.ids import parse_event_id
from triggers.commands.output import Json, explained, fail
from triggers.commands.progress import reading

#: Exit status where nothing is known of the id in all that was read. 1: it could not be looked for.
EXIT_NOT_FOUND: Final = 3


def explain(
    event: Annotated[str, typer.Argument(help="Its id: evt_…")],
    organization: Annotated[str | None, typer.Option(help="Whose it is: then one partition is read instead of all.")] = None,
    from_log: Annotated[bool, typer.Option("--from-log", help="Do not ask Postgres.")] = False,
    within: Annotated[
        str, typer.Option(help="How long after its id's time the event may have been appended, where only the log knows it.")
    ] = "15m",
    json: Json = False,
) -> None:
    """Tell what happened to an event, from Postgres and the log; from the log alone where Postgres does not answer.

    Exit status 3: there is no trace of it in what was read.
    """
    with explained():
        event_id = parse_event_id(event)
        if event_id is None:
            raise ValueError(f"{event!r} is not an event's id: evt_ and a UUID of version 7 in small letters, as the API answered it")
        settings = Settings()
        with reading() as line:
            told = gather(
                settings, event_id, organization, from_log=from_log, within_ms=parse_duration_s(within) * 1000, progress=line
            )  # fmt: skip
    if not told.found:
        raise _not_found(told, event, within, organization)
    made = document(told)
    if json:
        print(msgspec.json.encode(made).decode())
        return
    for text in lines(made):
        print(text)


def _not_found(told: Explained, event: str, within: str, organization: str | None) -> typer.Exit:
    if told.log is not None:
        return fail(f"the log could not be read ({told.log}), and Postgres: {told.folds or 'does not know the event'}")
    read = ", ".join(f"{span.topic}[{span.partition}] {span.begin}–{span.end}" for span in told.spans)
    stopped = "" if told.whole else " The limit of records came first: raise TRIGGERS_OPERATING__READ_RECORDS_MAX."
    owner = f" of organization {organization}" if organization else ""
    postgres = "Postgres does not know it" if told.folds is None else f"Postgres was not read ({told.folds})"
    fail(
        f"there is no trace of {event}{owner}. {postgres}; read was {read}: what was appended from a minute before the id's time until "
        f"{within} after it.{stopped} Check the id; look further with --within 24h"
    )
    return typer.Exit(EXIT_NOT_FOUND)


def lines(made: dict[str, Any]) -> Iterator[str]:
    """For people. A line a fact: what, where in the log, when."""
    yield _row("event", made["id"])
    yield _row("status", made["status"])
    yield _row("organization", f"{made['organization'] or '-'} {made['mode'] or ''}".rstrip())
    if (about := made["event"]) is not None:
        yield _row("type", about["type"] + (f", subject {about['subject']!r}" if about["subject"] else ""))
        yield _row("received", about["received_at"] + (f", occurred {about['occurred_at']}" if about["occurred_at"] else ""))
        yield _row("payload", f"{about['payload_bytes']} bytes, SHA-256 {about['payload_sha256']}")
        if about["data_key"]:
            state = {True: "erased", False: "encrypted", None: "encrypted, or erased: Postgres did not tell"}[about["erased"]]
            yield _row("data key", f"{about['data_key']}: {state}")
        if about["dedup_key"]:
            yield _row("dedup key", repr(about["dedup_key"]))
    yield _row("trace", f"{made['trace_id'] or '-'}, request {made['request_id'] or '-'}")
    for copy in made["ingested"]:
        yield _row("ingested", f"{_place(copy)} at {copy['appended_at']}: {copy['verdict']}")
    for one in made["rejected"]:
        yield _row("rejected", f"{_place(one)}, the record {_place(one['of'])}: {one['reason']}: {one['detail']!r}")
    if (lost := made["lost_to"]) is not None:
        where = "" if lost["at"] is None else f" ({_place(lost['at'])})"
        yield _row("dedup", f"{lost['kind']} of {lost['original_id']}{where}")
    if made["accepted"] is not None:
        inbox, ack = made["inbox"], made["ack"]
        yield _row("accepted", _place(made["accepted"]))
        yield _row("inbox", f"generation {inbox['generation']}, partition {inbox['partition']}, offset {inbox['offset']}")
        if (retention := made["retention"]) is not None:
            yield _row("retention", f"taken out of the inbox: kept is what was received from {retention['kept_from']} on")
        yield _row("ack", "-" if ack is None else f"{_place(ack)} at {ack['acked_at']}")
    if (plan := made["plan"]) is not None:
        held = f", {len(plan['held'])} disabled and held: {', '.join(plan['held'])}" if plan["held"] else ""
        yield _row("plan", f"{_place(plan)}: {len(plan['endpoint_ids'])} endpoints{held}")
    elif made["accepted"] is not None:
        yield _row("plan", "- (no endpoint takes it, or delivery has not come to it)")
    for delivery in made["deliveries"]:
        yield from _delivery(delivery)
    source = made["source"]
    yield _row("folds", source["folds"])
    yield _row("log", source["log"] + ("" if source["whole"] else ", not to the end"))
    for span in source["spans"]:
        stopped = "" if span["whole"] else " (stopped: the limit of records)"
        yield f"  {span['topic']}[{span['partition']}] {span['begin']}–{span['end']}{stopped}"


def _delivery(delivery: dict[str, Any]) -> Iterator[str]:
    yield _row("delivery", f"{delivery['endpoint_id']}: {delivery['state']}")
    causes = {one["round"]: one for one in delivery["rounds"]}
    begun = None
    for one in delivery["attempts"]:
        if one["round"] != begun:
            begun = one["round"]
            yield f"  asked for: {one['cause']}, {begun}" + (f"  {_place(causes[begun])}" if begun in causes else "")
        what = " ".join(str(part) for part in (one["outcome"], one["status"], one["error"] if one["error"] != "status" else None) if part)
        after = f", then dead: {one['dead_reason']}" if one["next"] == "dead" else ""
        yield f"  {one['attempt']}. {one['started_at']}, {one['duration_ms']} ms: {what}{after}  {_place(one)} by {one['worker']}"
    if (coming := delivery["next"]) is not None:
        due = f"not before {coming['not_before']}" if coming["not_before"] else "under way, or waiting for its turn"
        waits = coming["waits_on"]
        where = "" if waits is None else f", waits on {_place(waits)} (hop {coming['hop']}, put off {coming['put_off']} times)"
        yield f"  {coming['attempt']}. {due}{where}"
    if delivery["dead_letter"] is not None:
        yield f"  dead letter {_place(delivery['dead_letter'])}"


def _place(at: dict[str, Any]) -> str:
    return f"{at['topic']}[{at['partition']}]@{at['offset']}"


def _row(name: str, value: str) -> str:
    return f"{name:<12}  {value}"


def register(app: typer.Typer) -> None:
    app.command("explain")(explain)
