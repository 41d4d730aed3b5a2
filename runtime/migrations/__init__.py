"""Schema migrations, run by Alembic as a library. SQLAlchemy is used here only; statements are written as SQL.

`migrate` may be called by every process at start: an advisory lock lets one do the work and the others wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from runtime.postgres import connection_arguments
from runtime.settings import PostgresSettings

_LOCK_KEY: Final = 0x7472_6967  # "trig"
_LOCK_NOT_AVAILABLE: Final = "55P03"  # PostgreSQL error code lock_not_available
_FOLDER: Final = Path(__file__).parent
#: How long to wait for another process's migration, and for any lock a migration needs.
_LOCK_WAIT_S: Final = 60.0


class MigrationError(RuntimeError):
    """The database cannot be brought to the newest schema from here."""


@contextmanager
def _connection(settings: PostgresSettings, lock_wait_s: float = _LOCK_WAIT_S) -> Iterator[sqlalchemy.Connection]:
    arguments = connection_arguments(settings, search_path="public", application="migrate")
    conninfo = arguments.pop("conninfo")
    # A migration may take longer than a statement of the API, but may not wait for ever to begin.
    arguments["options"] = f"-c search_path=public -c lock_timeout={int(lock_wait_s * 1000)}"

    def dial() -> Any:
        import psycopg  # noqa: PLC0415 - SQLAlchemy imports its driver the same way, when first needed

        return psycopg.connect(conninfo, **arguments)

    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=dial, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        yield connection


def _config(connection: sqlalchemy.Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))  # ConfigParser interpolates
    config.attributes["connection"] = connection
    return config


def current(settings: PostgresSettings) -> str | None:
    """The revision the database is at, or None for an empty one."""
    with _connection(settings) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """The newest revision this code knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def is_known(revision: str) -> bool:
    """Whether this code knows a revision, so that a database can be brought there."""
    return any(script.revision == revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def migrate(settings: PostgresSettings, *, revision: str = "head", lock_wait_s: float = _LOCK_WAIT_S) -> tuple[str | None, str | None]:
    """Bring the database to the newest revision, or to an older one on the way; returns (before, after).

    Raises `MigrationError` if another migration holds the lock for `lock_wait_s` or the database is newer than this code;
    `sqlalchemy.exc.OperationalError` if the server does not answer.
    """
    with _connection(settings, lock_wait_s) as connection:
        _lock(connection, lock_wait_s)
        try:
            before = MigrationContext.configure(connection).get_current_revision()
            connection.commit()
            try:
                command.upgrade(_config(connection), revision)
            except CommandError as error:
                raise MigrationError(
                    f"the database is at {before}, this version knows up to {newest()}: run a newer one ({error})"
                ) from None
            after = MigrationContext.configure(connection).get_current_revision()
            connection.commit()
        finally:
            connection.rollback()
            connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK_KEY})
            connection.commit()
    return before, after


def _lock(connection: sqlalchemy.Connection, wait_s: float) -> None:
    """The lock belongs to the session, so it outlives this transaction and is freed if the process dies."""
    try:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
    except sqlalchemy.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise MigrationError(f"another process has been migrating for {wait_s:g} s: look for its connection `triggers-migrate`") from None
    connection.commit()
