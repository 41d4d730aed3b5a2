"""Databases of a test's own on the session's server, so that suites which count or empty tables do not meet."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from runtime.postgres import connect
from runtime.settings import PostgresSettings


@contextmanager
def empty_database(settings: PostgresSettings) -> Iterator[PostgresSettings]:
    """A database without any table, gone afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    with connect(settings, application="test") as admin:
        admin.autocommit = True
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield settings.model_copy(update={"dsn": SecretStr(make_conninfo(settings.dsn.get_secret_value(), dbname=name))})
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
