"""A log of this suite's own: on the session's servers there is what other tests left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime import migrations, topics
from runtime.settings import Settings
from tests.backends import Servers, start_servers
from tests.conftest import TEST_ENVIRONMENT
from tests.contract.databases import empty_database
from tests.contract.rebuild.corpus import Corpus
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
