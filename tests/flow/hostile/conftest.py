"""The callers' organization, an API whose limits are reached soon, and what the API weighed before."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.flow.hostile.apis import Api, answers
from tests.flow.raw import (
    assert_honest_works,
    rss_bytes,
)
from triggers.devstack.ports import free_ports
from triggers.provision import Tenant, make_tenant
from triggers.system import System, settings_of, until

TIGHT = {
    "TRIGGERS_API__HEAD_TIMEOUT_S": "1.5",
    "TRIGGERS_API__BODY_TIMEOUT_S": "1.5",
    "TRIGGERS_API__KEEP_ALIVE_S": "2",
    "TRIGGERS_API__SEND_TIMEOUT_S": "1.5",
    "TRIGGERS_API__REQUESTS_MAX": "6",
    "TRIGGERS_API__CONNECTIONS_MAX": "30",
}


@pytest.fixture(scope="package")
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "hostile")


@pytest.fixture(scope="package")
def reader(system: System) -> Tenant:
    """Of another organization: what these tests get accepted is read back, and must be found in one page."""
    return make_tenant(system.settings, "kept")


@pytest.fixture(scope="package")
def tight(system: System) -> Iterator[Api]:
    extra = {**TIGHT, "TRIGGERS_API__PORT": str(free_ports(1)[0])}
    api = Api("tight", settings_of({**system.environment, **extra}))
    system.start_process(api.name, ("serve",), extra)
    try:
        until(lambda: answers(f"{api.url}/health/ready"), 30, "the tight API being ready", 0.2)
        yield api
    finally:
        system.supervisor.stop(api.name)


@pytest.fixture(scope="package")
def rss_before(system: System, tenant: Tenant) -> int:
    """Resident bytes of the API once it has served some of everything."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: assert_honest_works(system, tenant.key), range(64)))
    return rss_bytes(system)


@pytest.fixture(autouse=True)
def measured(rss_before: int) -> None:
    """The memory is looked at before the first test of this module."""
