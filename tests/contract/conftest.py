"""A control plane for each file that counts and empties its tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection

from runtime import migrations
from runtime.postgres import connect
from runtime.settings import PostgresSettings, Settings
from tests.contract.databases import empty_database


@pytest.fixture(scope="module")
def postgres(settings: Settings) -> Iterator[PostgresSettings]:
    """A database of the file's own, with every table."""
    with empty_database(settings.postgres) as made:
        migrations.migrate(made)
        yield made


@pytest.fixture
def control(postgres: PostgresSettings) -> Iterator[Connection[Any]]:
    """To its control plane, which is empty, each statement a transaction."""
    with connect(postgres, application="test") as connection:
        connection.autocommit = True
        connection.execute("TRUNCATE control.organizations, control.audit_log, control.operators CASCADE")
        yield connection
