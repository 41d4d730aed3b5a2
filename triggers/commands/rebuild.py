"""`triggers rebuild`: fold the topics again beside the live tables, prove that both are the same, put the new ones in their place."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from access import audit
from processors.table_rebuild import rebuild_table
from projections.digests import Difference
from projections.rebuild import Rebuild, Report
from projections.sessions import RebuildError
from runtime import crashpoints, migrations
from runtime.clock import SYSTEM
from runtime.settings import Settings
from schemas.topics import DEDUP_CHANGELOG, EVENTS_INGESTED
from triggers.commands.meter import Meter
from triggers.commands.output import Json, explained, fail, show_one


class Targets(StrEnum):
    inbox = "inbox"
    attempts = "attempts"
    all = "all"
    dedup = "dedup"


def rebuild(
    target: Annotated[
        Targets,
        typer.Argument(
            help="inbox: events, acks, duplicates. attempts: deliveries. all: both. dedup: the table of keys, while no worker runs."
        ),
    ],
    verify_only: Annotated[bool, typer.Option("--verify-only", help="Compare, and put nothing in place.")] = False,
    keep_old: Annotated[bool, typer.Option("--keep-old", help="Keep the replaced tables, in a schema folds_old_<time>.")] = False,
    accept: Annotated[bool, typer.Option("--accept", help="Put the rebuilt tables in place although they differ.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an earlier run has folded.")] = False,
    json: Json = False,
) -> None:
    """Fold the topics from their start beside the live tables, compare, and exchange them if they are the same."""
    crashpoints.arm_from_environment()
    with explained():
        if verify_only and (accept or keep_old):
            raise ValueError("--verify-only puts nothing in place: leave out --accept and --keep-old")
        settings = Settings()
        if target is Targets.dedup:
            rebuild_dedup(settings, verify_only=verify_only, accept=accept, others=keep_old or restart, json=json)
            return
        if migrations.current(settings.postgres) != migrations.newest():
            raise RebuildError("the tables are not at the newest schema: run `triggers migrate`")
        old_schema = f"folds_old_{datetime.now(UTC):%Y%m%dt%H%M%Sz}" if keep_old else None
        run = Rebuild(settings, target.value, SYSTEM, Meter())
        try:
            report = asyncio.run(
                run.run(
                    verify_only=verify_only, accept=accept, restart=restart, old_schema=old_schema, actor=audit.command_line_actor()
                )
            )  # fmt: skip
        except KeyboardInterrupt:
            raise RebuildError("stopped: nothing was put in place; the same command goes on where this one was") from None
    show_one(document(report) if json else dict(summary(report)), json=json)
    if not report.equal:
        for line in differences(report):
            print(line, file=sys.stderr)
        if not report.swapped:
            raise fail(
                "the live tables are not what the log says: nothing was changed. What was folded is kept in folds_shadow; "
                f"`triggers rebuild {target.value} --accept` puts it in place"
            )


def rebuild_dedup(settings: Settings, *, verify_only: bool, accept: bool, others: bool, json: bool) -> None:
    """The table has no shadow: what it lacks is written to its changelog, which it is recovered from."""
    if others:
        raise ValueError("dedup has no old table and no earlier run: leave out --keep-old and --restart")
    report = rebuild_table(settings, SYSTEM, verify_only=verify_only, accept=accept)
    show_one(
        {
            "equal": report.equal, "markers": report.markers, "missing": report.missing, "unfounded": report.unfounded,
            "unreadable": report.unreadable, "written": report.written,
            "offsets": [f"{EVENTS_INGESTED}[{number}] {offset}" for number, offset in sorted(report.offsets.items())],
        },
        json=json,
    )  # fmt: skip
    for one in report.listed:
        what = "has no marker" if one.kind == "missing" else "has a marker, and was never accepted"
        print(f"{EVENTS_INGESTED}[{one.partition}]@{one.offset} {one.event_id}: {what}", file=sys.stderr)
    if report.unreadable:
        raise fail(
            f"{report.unreadable} records of the changelog are no markers, and a worker that meets one ends: empty the topic "
            f"{DEDUP_CHANGELOG} with kafka-delete-records and run this again"
        )
    if verify_only and not report.equal:
        raise fail("the changelog is not what the log says: stop the workers and run `triggers rebuild dedup`")
    if report.unfounded and not accept:
        raise fail("markers without an accepted event were left as they are: find out who wrote them; --accept puts them right")


def document(report: Report) -> dict[str, Any]:
    """For scripts."""
    return {
        "target": report.target,
        "equal": report.equal,
        "swapped": report.swapped,
        "kept_as": report.old_schema,
        "resumed": report.resumed,
        "records": report.records,
        "acks_ahead": report.acks_ahead,
        "offsets": [{"topic": topic, "partition": number, "next_offset": offset} for (topic, number), offset in report.offsets.items()],
        "tables": [
            {
                "table": table.table, "organizations": table.organizations, "rows": table.rows, "differences": table.differences,
                "listed": [one._asdict() for one in table.listed],
            }
            for table in report.tables
        ],
        "unfounded_acks": [one._asdict() for one in report.unfounded],
        "ingested_high": [
            {"topic": topic, "partition": number, "live": live, "log": log} for (topic, number), (live, log) in report.highs.items()
        ],
    }  # fmt: skip


def summary(report: Report) -> Iterator[tuple[str, str]]:
    """For people: a line a table, the vector, the outcome."""
    for table in report.tables:
        same = "the same" if not table.differences else f"{table.differences:,} DIFFERENCES"
        yield table.table, f"{table.rows:,} rows of {table.organizations:,} organizations and modes: {same}"
    topics: dict[str, list[str]] = {}
    for (topic, number), offset in report.offsets.items():
        topics.setdefault(topic, []).append(f"[{number}] {offset}")
    for topic, offsets in topics.items():
        yield f"at {topic}", ", ".join(offsets)
    if report.acks_ahead:
        yield "acks ahead", f"{report.acks_ahead:,} written by the API before their fold, as the log says"
    yield "records read", f"{report.records:,}{' (going on from an earlier run)' if report.resumed else ''}"
    kept = f"; the old tables are in {report.old_schema}" if report.old_schema else ""
    yield "outcome", f"put in place{kept}" if report.swapped else "compared; nothing was put in place"


def differences(report: Report) -> Iterator[str]:
    """A line a difference, as far as they are listed."""
    for table in report.tables:
        for one in table.listed:
            yield _line(one)
        if (more := table.differences - len(table.listed)) > 0:
            yield f"{table.table}: {more:,} more"
    for one in report.unfounded:
        yield f"{_line(one)} (written ahead of the fold, without a record in the log)"
    for (topic, number), (live, log) in report.highs.items():
        yield f"projection_offsets {topic}[{number}]: the highest ingested offset is {live} live, {log} by the log"


def _line(one: Difference) -> str:
    what = {
        "missing": "is not in the live table",
        "unknown": "is in the live table only",
        "changed": f"differs in {', '.join(one.columns)}",
    }
    return f"{one.table} {one.organization}/{one.mode} {one.event_id} {one.topic}[{one.partition}]@{one.position}: {what[one.kind]}"


def register(app: typer.Typer) -> None:
    app.command("rebuild")(rebuild)
