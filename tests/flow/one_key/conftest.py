"""Two API processes beside the system's own, which wait for Redis as long as it lives; an organization for each test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
import pytest

from tests.backends import Servers
from tests.flow.hostile.apis import Api, answers
from triggers.devstack.ports import free_ports
from triggers.devstack.stack import Stack
from triggers.provision import Tenant, make_tenant
from triggers.system import System, settings_of, until

#: On a loaded machine Redis answers late; for the product that is a Redis that is away, and here it must be away only when it was taken.
PATIENT = {"TRIGGERS_REDIS__TIMEOUT_S": "4"}


@contextmanager
def started(system: System, *names: str, extra: Mapping[str, str] | None = None) -> Iterator[list[Api]]:
    """API processes under these names, beside the system's own."""
    apis: list[Api] = []
    try:
        for name in names:
            changes = {**PATIENT, **(extra or {}), "TRIGGERS_API__PORT": str(free_ports(1)[0])}
            apis.append(Api(name, settings_of({**system.environment, **changes})))
            system.start_process(name, ("serve",), changes)
        for api in apis:
            until(lambda url=api.url: answers(f"{url}/health/ready"), 60, f"{api.name} being ready", 0.2)  # type: ignore[misc]
        yield apis
    finally:
        for api in apis:
            system.supervisor.stop(api.name)


@pytest.fixture(scope="package")
def urls(system: System) -> Iterator[list[str]]:
    """Two API processes."""
    with started(system, "one", "two") as apis:
        yield [api.url for api in apis]


@pytest.fixture
def tenant(system: System) -> Tenant:
    """Of this test alone: its log and its inbox hold nothing else."""
    return make_tenant(system.settings, "one key")


@pytest.fixture
def client(urls: list[str], tenant: Tenant) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=urls[0], headers={"X-API-Key": tenant.key}, timeout=15) as one:
        yield one


@pytest.fixture
def stack(servers: Servers) -> Stack:
    if servers.stack is None:
        pytest.skip("faults are only placed on the embedded stack")
    return servers.stack
