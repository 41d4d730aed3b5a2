"""Fixtures of the suites that need servers: one embedded stack for the session, prepared as an operator would prepare it.

With `TRIGGERS_TEST_BACKEND=containers` and a Docker engine the same fixtures start testcontainers (see `tests.backends`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from runtime import migrations, topics
from runtime.settings import Settings
from tests.backends import Servers, start_servers
from triggers.system import settings_of

#: Short, so that a test runs the whole schedule and meets a dead member's time-out in seconds.
TEST_ENVIRONMENT = {
    "TRIGGERS_DELIVERY__DELAYS_S": "[0.5, 1, 2]",
    "TRIGGERS_DELIVERY__SCHEDULE_S": "[0.5, 1, 2.5]",
    "TRIGGERS_DELIVERY__ATTEMPT_TIMEOUT_S": "3",
    "TRIGGERS_DELIVERY__BREAKER_OPEN_S": "[0.5, 1, 2]",
    "TRIGGERS_KAFKA__SESSION_TIMEOUT_S": "6",
    "TRIGGERS_KAFKA__HEARTBEAT_INTERVAL_S": "1",
    "TRIGGERS_TELEMETRY__LOG_EVENTS": "true",
    "TRIGGERS_ACCESS__LAST_USED_INTERVAL_S": "0.5",
    # On a busy machine Redis answers late, which to the product is a Redis that is away: here it is away only when it was taken.
    "TRIGGERS_REDIS__TIMEOUT_S": "1",
    # All tests share one address, and some ask with wrong keys on purpose.
    "TRIGGERS_ACCESS__FAILED_KEYS_PER_MINUTE_MAX": "300",
}


@pytest.fixture(scope="session", autouse=True)
def environment_is_ours() -> None:
    """Nothing of the caller's `TRIGGERS_` environment reaches a test."""
    for name in [name for name in os.environ if name.startswith("TRIGGERS_") and name != "TRIGGERS_TEST_BACKEND"]:
        del os.environ[name]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, environment_is_ours: None) -> Iterator[Servers]:
    with start_servers(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="session")
def environment(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that uses the session's servers, with tables and topics in place."""
    made = {**servers.environment, **TEST_ENVIRONMENT, "TRIGGERS_PROCESSOR__DATA_DIR": str(tmp_path_factory.mktemp("processors"))}
    prepared = settings_of(made)
    migrations.migrate(prepared.postgres)
    topics.ensure(prepared.kafka, prepared.delivery.delays_s)
    return made


@pytest.fixture(scope="session")
def settings(environment: dict[str, str]) -> Settings:
    return settings_of(environment)
