"""How commands speak: rows for people, JSON for scripts, one line on standard error when something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import psycopg
import typer
from confluent_kafka import KafkaException
from psycopg import Connection
from pydantic import ValidationError
from pydantic_settings import SettingsError

from access.organizations import NotPossible, NotThere
from access.secrets import KeyringError
from runtime.lifecycle import Unavailable
from runtime.postgres import HeldBack, connect
from runtime.settings import Settings
from runtime.topics import TopicMismatch
from triggers.devstack.server import ServerError

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def show(rows: Iterable[Mapping[str, Any]], *, json: bool) -> None:
    """A table whose columns are the keys of the first row; with `json` one array."""
    listed = [dict(row) for row in rows]
    if json:
        print(msgspec.json.encode(listed).decode())
        return
    if not listed:
        print("(none)")
        return
    table = [list(listed[0]), *([_cell(value) for value in row.values()] for row in listed)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_one(row: Mapping[str, Any], *, json: bool) -> None:
    if json:
        print(msgspec.json.encode(dict(row)).decode())
        return
    width = max(len(name) for name in row)
    for name, value in row.items():
        print(f"{name.ljust(width)}  {_cell(value)}")


def effective(settings: Settings, version: int) -> str:
    """Tell caches of keys about a change, and say when it is effective everywhere."""
    from access.epoch import tell_caches  # noqa: PLC0415 - Redis' client, which not every process has

    if tell_caches(settings.redis, version):
        return "now"
    return "within 5 s (Redis was not told, so caches have to notice: is TRIGGERS_REDIS__URL right?)"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def fail(message: str) -> typer.Exit:
    print(f"triggers: {' '.join(message.split())}", file=sys.stderr)
    return typer.Exit(1)


def _settings_at_fault(error: ValidationError) -> str:
    """Every variable at fault and what it must be, never what it holds: that may be a secret."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"TRIGGERS_{'__'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}" for fault in faults)


def _refusals() -> tuple[type[Exception], ...]:
    """Of PostgreSQL. SQLAlchemy's where that was needed: a process that runs for good does without it (`triggers.main`)."""
    refusals: tuple[type[Exception], ...] = (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege)
    sqlalchemy = sys.modules.get("sqlalchemy.exc")
    return refusals if sqlalchemy is None else (*refusals, sqlalchemy.DBAPIError)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what commands can meet into one line and exit status 1."""
    try:
        yield
    except typer.Exit:  # said already; it is a RuntimeError too
        raise
    except (NotThere, NotPossible, KeyringError, TopicMismatch, Unavailable, ServerError, RuntimeError) as error:
        raise fail(str(error)) from None
    except TimeoutError as error:
        raise fail(str(error) or "a server did not answer in time: run it again, and see what `/health/ready` says") from None
    except ValidationError as error:
        raise fail(_settings_at_fault(error)) from None
    except SettingsError as error:
        raise fail(f"{error}: check the TRIGGERS_ environment") from None
    except ValueError as error:
        raise fail(str(error)) from None
    except HeldBack as error:
        raise fail(f"{error}: run `triggers restore` or `triggers topics grow`, whichever was begun, to its end") from None
    except _refusals() as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        raise fail(f"PostgreSQL refused or did not answer ({reason}): is it running, and is TRIGGERS_POSTGRES__DSN right?") from None
    except psycopg.errors.UndefinedTable:
        raise fail("the tables are not there yet: run `triggers migrate`") from None
    except KafkaException as error:
        raise fail(f"Kafka refused or did not answer ({error}): is it running, and is TRIGGERS_KAFKA__BOOTSTRAP_SERVERS right?") from None


@contextmanager
def control_plane() -> Iterator[tuple[Settings, Connection[Any]]]:
    """Settings and one connection to the control plane; errors explained."""
    with explained():
        settings = Settings()
        with connect(settings.postgres, application="cli") as connection:
            connection.autocommit = True
            yield settings, connection
