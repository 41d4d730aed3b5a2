"""Two systems: one with a log of everything that can be in one, and an empty one to restore to, emptied again after each test."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from projections.offsets import fold_generation
from runtime import migrations, topics
from runtime.clock import SYSTEM
from runtime.settings import Settings
from schemas.topics import FIRST_GENERATION, declared
from tests.backends import Servers, start_servers
from tests.conftest import TEST_ENVIRONMENT
from tests.contract.backup.growing import fill_small
from tests.contract.backup.rig import fill, quiet
from tests.contract.databases import empty_database
from triggers.backup.save import Done, save
from triggers.system import settings_of, until


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory, environment_is_ours: None) -> Iterator[tuple[Servers, Servers]]:
    """Started side by side."""
    with ExitStack() as started, ThreadPoolExecutor() as pool:
        entered = [pool.submit(started.enter_context, start_servers(tmp_path_factory.mktemp(name))) for name in ("source", "target")]
        yield entered[0].result(), entered[1].result()


@pytest.fixture(scope="package")
def environments(pair: tuple[Servers, Servers]) -> tuple[dict[str, str], dict[str, str]]:
    """Of both; the master keys are the first one's, as they are where somebody restores."""
    source = {**pair[0].environment, **TEST_ENVIRONMENT}
    return source, {**pair[1].environment, **TEST_ENVIRONMENT, "TRIGGERS_MASTER_KEYS": source["TRIGGERS_MASTER_KEYS"]}


@pytest.fixture(scope="package")
def source(environments: tuple[dict[str, str], dict[str, str]]) -> Settings:
    settings = settings_of(environments[0])
    migrations.migrate(settings.postgres)
    topics.ensure(settings.kafka, settings.delivery.delays_s)
    fill(settings)
    return settings


@pytest.fixture(scope="package")
def saved(source: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A backup of it, in many segments. To be copied, not changed."""
    directory = tmp_path_factory.mktemp("saved") / "backup"
    return directory, save(source, directory, SYSTEM, quiet, segment_bytes_max=50_000)


@pytest.fixture
def target(environments: tuple[dict[str, str], dict[str, str]]) -> Iterator[Settings]:
    """Empty servers."""
    with emptied(settings_of(environments[1])) as settings:
        yield settings


@pytest.fixture
def small(target: Settings) -> Iterator[Settings]:
    """A system of two partitions at rest. Its partitions may grow, so what this process folds is of the first generation again after it."""
    yield fill_small(target)
    fold_generation(FIRST_GENERATION)


@pytest.fixture
def empty_source(environments: tuple[dict[str, str], dict[str, str]]) -> Iterator[Settings]:
    """The other ones, for a system of a test's own: what `source` has put there is gone afterwards."""
    with emptied(settings_of(environments[0])) as settings:
        yield settings


@contextmanager
def emptied(settings: Settings) -> Iterator[Settings]:
    empty_kafka(settings)
    with redis.Redis.from_url(settings.redis.url.get_secret_value()) as client:
        client.flushdb()
    with empty_database(settings.postgres) as made:
        yield settings.model_copy(update={"postgres": made})


def empty_kafka(settings: Settings) -> None:
    """As a broker that was just started: no topic of ours, no group."""
    client = topics.admin(settings.kafka)
    there = [name for name in client.list_topics(timeout=10).topics if not name.startswith("__")]
    for answer in client.delete_topics(there).values() if there else ():
        answer.result(30)
    until(lambda: not {*there} & client.list_topics(timeout=10).topics.keys(), 30, "the topics going away")
    groups = {group for topic in declared(settings.delivery.delays_s) for group in topic.groups}
    until(lambda: all(_gone(client, group) for group in groups), 30, "the groups going away", 0.5)


def _gone(client: AdminClient, group: str) -> bool:
    """A static member that left stays in its group until its session ends."""
    try:
        client.delete_consumer_groups([group])[group].result(30)
    except KafkaException as error:
        return bool(error.args[0].name() == "GROUP_ID_NOT_FOUND")
    return True
