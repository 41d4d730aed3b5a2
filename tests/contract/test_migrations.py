from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from runtime import migrations
from runtime.postgres import connect
from runtime.settings import PostgresSettings, Settings
from tests.contract.databases import empty_database
from triggers.system import argv, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty(settings: Settings) -> Iterator[PostgresSettings]:
    with empty_database(settings.postgres) as made:
        yield made


def schemas(settings: PostgresSettings) -> set[str]:
    with connect(settings, application="test") as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname IN ('control', 'folds')").fetchall()
    return {row[0] for row in rows}


def test_an_empty_database_comes_to_the_newest_schema_once(empty: PostgresSettings) -> None:
    assert migrations.current(empty) is None
    assert migrations.migrate(empty) == (None, migrations.newest())
    assert schemas(empty) == {"control", "folds"}
    assert migrations.current(empty) == migrations.newest() is not None
    assert migrations.migrate(empty) == (migrations.newest(), migrations.newest())


def test_of_many_processes_that_migrate_at_once_one_does_the_work_and_all_succeed(
    empty: PostgresSettings, environment: dict[str, str]
) -> None:
    ours = {**environment, "TRIGGERS_POSTGRES__DSN": empty.dsn.get_secret_value()}
    command = argv("migrate", "--json")
    with connect(empty, application="test") as gate:  # held until all stand before it, so that they do meet
        gate.autocommit = True
        gate.execute("SELECT pg_advisory_lock(%s)", (migrations._LOCK_KEY,))
        started = [subprocess.Popen(command, env=ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
        try:
            until(lambda: waiting(gate) == len(started), 60, "four processes waiting for the lock")
        finally:
            gate.execute("SELECT pg_advisory_unlock(%s)", (migrations._LOCK_KEY,))
            finished = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0] * 4, finished
    befores = [json.loads(output)["before"] for output, _ in finished]
    assert befores.count(None) == 1
    assert befores.count(migrations.newest()) == 3


def waiting(connection: psycopg.Connection[Any]) -> int:
    """Sessions that wait for an advisory lock in this database."""
    row = connection.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_migration_that_hangs_elsewhere_is_waited_for_with_a_limit_and_named(empty: PostgresSettings) -> None:
    with connect(empty, application="test") as other:
        other.execute("SELECT pg_advisory_lock(%s)", (migrations._LOCK_KEY,))
        with pytest.raises(migrations.MigrationError, match=r"another process has been migrating for 0\.2 s"):
            migrations.migrate(empty, lock_wait_s=0.2)
        assert schemas(empty) == set()
    assert migrations.migrate(empty)[1] == migrations.newest()  # the other's end freed the lock


def test_a_database_newer_than_the_code_is_refused_and_left_alone(empty: PostgresSettings) -> None:
    migrations.migrate(empty)
    with connect(empty, application="test") as connection:
        connection.execute("UPDATE public.alembic_version SET version_num = '9999_future'")
    with pytest.raises(migrations.MigrationError, match="the database is at 9999_future, this version knows up to"):
        migrations.migrate(empty)
    assert migrations.current(empty) == "9999_future"


def test_a_migration_that_fails_leaves_the_database_as_it_was_and_the_lock_free(empty: PostgresSettings) -> None:
    with connect(empty, application="test") as connection:
        connection.execute("CREATE SCHEMA folds")  # what the second revision is going to create
    with pytest.raises(DBAPIError, match="already exists"):
        migrations.migrate(empty)
    assert schemas(empty) == {"folds"}
    assert migrations.current(empty) is None
    with connect(empty, application="test") as connection:
        connection.execute("DROP SCHEMA folds")
    assert migrations.migrate(empty, lock_wait_s=1) == (None, migrations.newest())


ORGANIZATION = "INSERT INTO control.organizations (id, name) VALUES ('org_1', 'one'); "
ENDPOINT = ORGANIZATION + "INSERT INTO control.endpoints (id, organization, mode, url, "


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("INSERT INTO control.organizations (id, name, plan) VALUES ('o', 'n', 'gold')", "organizations_plan_check"),
        ("INSERT INTO control.organizations (id, name) VALUES ('o', '')", "organizations_name_check"),
        (
            "INSERT INTO control.organizations (id, name, rate_limit_per_minute) VALUES ('o', 'n', 0)",
            "organizations_rate_limit_per_minute_check",
        ),
        (
            "INSERT INTO control.api_keys (id, organization, mode, name, prefix, hash, scopes) "
            "VALUES ('k', 'org_none', 'live', 'n', 'zap_live_abc', sha256('a'), '{}')",
            "api_keys_organization_fkey",
        ),
        (
            ORGANIZATION + "INSERT INTO control.api_keys (id, organization, mode, name, prefix, hash, scopes) "
            "VALUES ('k', 'org_1', 'prod', 'n', 'zap_live_abc', sha256('a'), '{}')",
            "api_keys_mode_check",
        ),
        (
            ORGANIZATION + "INSERT INTO control.api_keys (id, organization, mode, name, prefix, hash, scopes) "
            "VALUES ('k', 'org_1', 'live', 'n', 'zap_live_abc', 'a whole key', '{}')",
            "api_keys_hash_check",
        ),
        (
            ORGANIZATION + "INSERT INTO control.endpoints (id, organization, mode, url) VALUES ('e', 'org_1', 'prod', 'https://x')",
            "endpoints_mode_check",
        ),
        (ENDPOINT + "concurrency) VALUES ('e', 'org_1', 'live', 'https://x', 65)", "endpoints_concurrency_check"),
        (ENDPOINT + "deadline_s) VALUES ('e', 'org_1', 'live', 'https://x', 61)", "endpoints_deadline_s_check"),
        (ENDPOINT + "schedule) VALUES ('e', 'org_1', 'live', 'https://x', 'hourly')", "endpoints_schedule_check"),
        (ENDPOINT + "schedule) VALUES ('e', 'org_1', 'live', 'https://x', 'custom')", "endpoints_own_schedule"),
        (ENDPOINT + "schedule_s) VALUES ('e', 'org_1', 'live', 'https://x', '{1}')", "endpoints_own_schedule"),
        (ENDPOINT + "schedule, schedule_s) VALUES ('e', 'org_1', 'live', 'https://x', 'custom', '{}')", "endpoints_schedule_s_check"),
        (ENDPOINT + "schedule, schedule_s) VALUES ('e', 'org_1', 'live', 'https://x', 'custom', '{1,null}')", "endpoints_schedule_s_check"),
        (ENDPOINT + "schedule, schedule_s) VALUES ('e', 'org_1', 'live', 'https://x', 'custom', '{0.5}')", "endpoints_schedule_s_check"),
        (ENDPOINT + "deleted_at) VALUES ('e', 'org_1', 'live', 'https://x', now())", "endpoints_deleted_disabled"),
        (ENDPOINT + "disabled_reason) VALUES ('e', 'org_1', 'live', 'https://x', 'bored')", "endpoints_disabled_reason_check"),
        (
            "INSERT INTO control.endpoint_secrets (endpoint, id, ciphertext, master_key_id) VALUES ('none', 1, '', 'm')",
            "endpoint_secrets_endpoint_fkey",
        ),
        ("INSERT INTO control.revocation (version) VALUES (2)", "revocation_pkey"),
        ("INSERT INTO control.revocation (single, version) VALUES (false, 2)", "revocation_single_check"),
    ],
)
def test_the_tables_refuse_what_no_code_should_write(settings: Settings, statement: str, constraint: str) -> None:
    with connect(settings.postgres, application="test") as connection, pytest.raises(psycopg.IntegrityError) as raised:
        connection.execute(statement.encode())
    assert raised.value.diag.constraint_name == constraint


def test_the_wheel_holds_every_migration_and_every_statement(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(path.relative_to(ROOT))
        for package in ("access", "runtime", "projections", "delivery", "ingest")
        for pattern in ("*.py", "*.sql", "*.lua")
        for path in (ROOT / package).rglob(pattern)
    }
    assert {"runtime/migrations/env.py", "runtime/migrations/versions/0001_control.py", "access/sql/insert_key.sql"} <= wanted
    assert wanted - held == set()
