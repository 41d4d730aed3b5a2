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
from tests.contract.databases import empty_database
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
    with empty_database(base.postgres) as made:
        migrations.migrate(made)
        yield base.model_copy(update={"postgres": made})


@pytest.fixture(scope="package")
def folded(base: Settings, corpus: Corpus) -> Iterator[Settings]:
    """Live tables folded from the whole log so far, with a finished shadow beside them. To be copied, not used."""
    with empty_database(base.postgres) as made:
        migrations.migrate(made)
        settings = base.model_copy(update={"postgres": made})
        fold_live(settings)
        execute(settings, "UPDATE inbox SET type = type || 'x'")  # a difference, so that the shadow stays
        assert not rebuild(settings, verify_only=True).equal
        execute(settings, "UPDATE inbox SET type = rtrim(type, 'x')")
        yield settings


@pytest.fixture
def live(folded: Settings) -> Iterator[Settings]:
    """A copy of `folded`."""
    with copy_of(folded) as made:
        yield made


@contextmanager
def copy_of(settings: Settings) -> Iterator[Settings]:
    """The database once more, as it is; nobody may be connected to it."""
    dsn, name = settings.postgres.dsn.get_secret_value(), f"test_{secrets.token_hex(6)}"

    def database(other: str) -> PostgresSettings:
        return settings.postgres.model_copy(update={"dsn": SecretStr(make_conninfo(dsn, dbname=other))})

    source = str(conninfo_to_dict(dsn)["dbname"])
    with connect(database("postgres"), application="test") as admin:
        admin.autocommit = True
        admin.execute("SET statement_timeout = 0")
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(source)))
        try:
            yield settings.model_copy(update={"postgres": database(name)})
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
