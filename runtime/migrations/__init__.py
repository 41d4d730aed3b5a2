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

from runtime.postgres import connection_arguments
from runtime.settings import PostgresSettings

_LOCK_KEY: Final = 0x7472_6967  # "trig"
_FOLDER: Final = Path(__file__).parent


@contextmanager
def _connection(settings: PostgresSettings) -> Iterator[sqlalchemy.Connection]:
    arguments = connection_arguments(settings, search_path="public", application="migrate")
    conninfo = arguments.pop("conninfo")
    arguments["options"] = "-c search_path=public"  # a migration may take longer than a statement of the API

    def dial() -> Any:
        import psycopg  # noqa: PLC0415 - SQLAlchemy imports its driver the same way, when first needed

        return psycopg.connect(conninfo, **arguments)

    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=dial, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        yield connection


def _config(connection: sqlalchemy.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    return config


def current(settings: PostgresSettings) -> str | None:
    """The revision the database is at, or None for an empty one."""
    with _connection(settings) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """The newest revision this code knows."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    return ScriptDirectory.from_config(config).get_current_head()


def migrate(settings: PostgresSettings) -> tuple[str | None, str | None]:
    """Bring the database to the newest revision; returns (before, after). Raises `sqlalchemy.exc.OperationalError`."""
    with _connection(settings) as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
        connection.commit()
        try:
            before = MigrationContext.configure(connection).get_current_revision()
            connection.commit()
            command.upgrade(_config(connection), "head")
            after = MigrationContext.configure(connection).get_current_revision()
            connection.commit()
        finally:
            connection.rollback()
            connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK_KEY})
            connection.commit()
    return before, after
