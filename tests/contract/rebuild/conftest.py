"""A log of this suite's own: on the session's servers there is what other tests left."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from runtime import migrations, topics
from runtime.postgres import connect
from runtime.settings import PostgresSettings, Settings
from tests.backends import Servers, start_servers
from tests.conftest import TEST_ENVIRONMENT
from tests.contract.rebuild.corpus import Corpus
from tests.contract.rebuild.rig import execute, fold_live, rebuild
from triggers.system import settings_of

EVENTS = 3_000


@pytest.fixture(scope="package")
def own_servers(tmp_path_factory: pytest.TempPathFactory, environment_is_ours: None) -> Iterator[Servers]:
    with start_servers(tmp_path_factory.mktemp("rebuild")) as running:
        yield running


@pytest.fixture(scope="package")
def base(own_servers: Servers) -> Settings:
    prepared = settings_of({**own_servers.environment, **TEST_ENVIRONMENT})
    topics.ensure(prepared.kafka, prepared.delivery.delays_s)
    return prepared


@pytest.fixture(scope="package")
def corpus(base: Settings) -> Corpus:
    """Some thousand events in the log."""
    made = Corpus(base, organizations=12)
    made.produce(EVENTS)
    return made


@pytest.fixture
def tables(base: Settings, corpus: Corpus) -> Iterator[Settings]:
    """Settings with empty tables in a database of their own."""
    with database(base, "template1") as made:
        migrations.migrate(made.postgres)
        yield made


@pytest.fixture(scope="package")
def folded(base: Settings, corpus: Corpus) -> Iterator[Settings]:
    """Live tables folded from the whole log so far, with a finished shadow beside them. To be copied, not used."""
    with database(base, "template1") as settings:
        migrations.migrate(settings.postgres)
        fold_live(settings)
        execute(settings, "UPDATE inbox SET type = type || 'x'")  # a difference, so that the shadow stays
        assert not rebuild(settings, verify_only=True).equal
        execute(settings, "UPDATE inbox SET type = rtrim(type, 'x')")
        yield settings


@pytest.fixture
def live(folded: Settings) -> Iterator[Settings]:
    """A copy of `folded`."""
    with database(folded, str(conninfo_to_dict(folded.postgres.dsn.get_secret_value())["dbname"])) as made:
        yield made


@contextmanager
def database(settings: Settings, template: str) -> Iterator[Settings]:
    """A copy of a database, which nobody may be using. No connection is kept meanwhile: a test here kills the server."""
    dsn, text = settings.postgres.dsn.get_secret_value(), f"test_{secrets.token_hex(6)}"
    name = sql.Identifier(text)

    def named(other: str) -> PostgresSettings:
        return settings.postgres.model_copy(update={"dsn": SecretStr(make_conninfo(dsn, dbname=other))})

    def administer(statement: sql.Composed) -> None:
        with connect(named("postgres"), application="test") as admin:
            admin.autocommit = True
            admin.execute("SET statement_timeout = 0")
            admin.execute(statement)

    administer(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(template)))
    try:
        yield settings.model_copy(update={"postgres": named(text)})
    finally:
        administer(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
