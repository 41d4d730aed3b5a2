"""Organizations, keys and endpoints made from within a process that has the settings: for demonstrations, the smoke test and the tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from access import api_keys, egress, endpoints, keys, organizations
from access.changes import Owner
from access.endpoint_bodies import Rules
from access.endpoint_secrets import SECRET_BYTES
from access.secrets import Keyring
from runtime.clock import SYSTEM
from runtime.postgres import connect
from runtime.settings import Settings
from schemas import ids
from schemas.events import Mode
from schemas.ids import EndpointId, OrganizationId

_ACTOR: Final = "local"


class Tenant(NamedTuple):
    """An organization with one key that may do everything."""

    organization: OrganizationId
    key_id: str
    key: str


def make_tenant(settings: Settings, name: str, *, mode: Mode = "live", scopes: Sequence[str] = keys.SCOPES) -> Tenant:
    with connect(settings.postgres, application="provision") as connection:
        made = organizations.create(
            connection, ids.organization_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)), name=name, plan="enterprise",
            rate_limit_per_minute=None, actor=_ACTOR,
        )  # fmt: skip
    return make_key(settings, made.id, mode=mode, scopes=scopes)


def make_key(settings: Settings, organization: OrganizationId, *, mode: Mode = "live", scopes: Sequence[str] = keys.SCOPES) -> Tenant:
    with connect(settings.postgres, application="provision") as connection:
        row, text = api_keys.create(
            connection, ids.api_key_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)), organization=organization, mode=mode,
            name="local", scopes=scopes, random=os.urandom(keys.RANDOM_BYTES), actor=_ACTOR,
        )  # fmt: skip
    return Tenant(organization, row.id, text)


def make_endpoint(
    settings: Settings,
    organization: OrganizationId,
    url: str,
    *,
    mode: Mode = "live",
    event_types: Sequence[str] | None = None,
    **members: Any,
) -> tuple[EndpointId, str]:
    """(endpoint id, signing secret). `members`: further ones of `access.endpoint_bodies.Configuration`."""
    with connect(settings.postgres, application="provision") as connection:
        made, secret = endpoints.add(
            connection, Keyring.from_setting(settings.master_keys.get_secret_value()),
            ids.endpoint_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES)), Owner(organization, mode),
            {"url": url, "event_types": event_types, **members}, secret=os.urandom(SECRET_BYTES),
            rules=Rules(egress.Rules(insecure=True), endpoints_max=settings.access.endpoints_max), actor=_ACTOR,
        )  # fmt: skip
    return made.id, secret
