"""`triggers backup` and `triggers restore`: the control plane and the log to files, and into an empty system again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from access import audit as audit_log
from runtime import crashpoints
from runtime.clock import SYSTEM
from runtime.postgres import connect
from runtime.settings import Settings
from triggers.backup.check import check
from triggers.backup.manifest import Manifest
from triggers.backup.restore import restore as restore_into
from triggers.backup.save import save
from triggers.commands.meter import Meter
from triggers.commands.output import Json, explained, show_one

Folder = Annotated[Path, typer.Argument(help="A folder of its own for the backup.", file_okay=False)]


def backup(
    directory: Folder,
    verify: Annotated[bool, typer.Option("--verify", help="Check the backup that is there. Needs no server and no settings.")] = False,
    json: Json = False,
) -> None:
    """Write the control plane and the log to files while the system runs, or add what is new to the backup that is there."""
    crashpoints.arm_from_environment()
    with explained(), files_explained(directory):
        if verify:
            checked = check(directory, Meter())
            show_one(shown(checked.digest, checked.manifest, json=json), json=json)
            return
        settings = Settings()
        done = save(settings, directory, SYSTEM, Meter())
        # What stands in the audit log is what a folder can be held against later.
        with connect(settings.postgres, application="cli") as connection:
            audit_log.record(
                connection, actor=audit_log.command_line_actor(), action="backup.made", organization=None, target=done.digest,
                detail={"run": done.manifest.run, "records": sum(one.records for one in done.manifest.segments)},
            )  # fmt: skip
        show_one({**shown(done.digest, done.manifest, json=json), "records_new": done.read}, json=json)


def restore(directory: Folder, json: Json = False) -> None:
    """Put a backup into an empty system: topics, offsets, control plane and folds. Stopped, the same command goes on."""
    crashpoints.arm_from_environment()
    with explained(), files_explained(directory):
        done = restore_into(Settings(), directory, SYSTEM, Meter())
        outcome = {
            **shown(done.digest, done.manifest, json=json), "resumed": done.resumed, "records_written": done.records,
            "retention_lifted": done.kept_longer, "warnings": done.warnings,
        }  # fmt: skip
        show_one(outcome, json=json)


@contextmanager
def files_explained(directory: Path) -> Iterator[None]:
    """What the file system refuses, in words."""
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:
        raise ValueError(f"{error.filename or directory}: {error.strerror or error}") from None


def shown(digest: str, manifest: Manifest, *, json: bool) -> dict[str, Any]:
    """What a backup is, for people and scripts."""
    made = datetime.fromtimestamp(manifest.made_at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    topics = {topic.name: 0 for topic in manifest.topics}
    for segment in manifest.segments:
        topics[segment.topic] += segment.records
    counted: Any = topics if json else [f"{name} {count:,}" for name, count in topics.items() if count]
    return {
        "backup": digest,
        "run": manifest.run,
        "made_at": made,
        "version": manifest.version,
        "revision": manifest.revision,
        "partitions": manifest.partitions,
        "records": counted,
        "rows": sum(table.rows for table in manifest.tables),
        "bytes": sum(file.size for file in manifest.files()),
        "needs_master_keys": manifest.master_keys,
        "oldest_master_key": manifest.oldest_key,
    }


def register(app: typer.Typer) -> None:
    app.command("backup")(backup)
    app.command("restore")(restore)
