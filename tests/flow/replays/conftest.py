"""Who replays are for, who asks for them, and an endpoint that takes them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.flow.operator_token import make_operator
from triggers.provision import Tenant, make_endpoint, make_tenant
from triggers.receiver import Receiver
from triggers.system import System


@pytest.fixture
def tenant(system: System) -> Tenant:
    return make_tenant(system.settings, "replays")


@pytest.fixture
def client(system: System, tenant: Tenant) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, headers={"X-API-Key": tenant.key}, timeout=15) as one:
        yield one


@pytest.fixture
def desk(system: System) -> Iterator[httpx.Client]:
    token = make_operator(system.settings)
    with httpx.Client(base_url=f"{system.url}/operator", headers={"Authorization": f"Bearer {token}"}, timeout=40) as one:
        yield one


@pytest.fixture
def endpoint(system: System, tenant: Tenant, receiver: Receiver) -> str:
    made, receiver.secrets["/webhooks"] = make_endpoint(
        system.settings, tenant.organization, receiver.url(), event_types=["order.*"], schedule_s=[1]
    )
    return made
