from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Any, cast

import psycopg
import pytest
from psycopg import Connection

from access import api_keys, egress, endpoint_secrets, endpoints, keys, organizations
from access.changes import Owner
from access.endpoint_bodies import Rules
from access.endpoint_secrets import SECRET_BYTES
from access.organizations import NotThere, Organization
from access.secrets import Keyring, KeyringError
from runtime.postgres import CONTROL_SCHEMA, pool
from runtime.settings import PostgresSettings
from schemas import ids
from tests.contract.new_ids import random_id

ACTOR = "test:ada"
URL = "https://receiver.example/hooks"


def ring(*names: str) -> Keyring:
    return Keyring.from_setting(",".join(f"{name}:{base64.b64encode(name.encode() * 32).decode()}" for name in names))


@pytest.fixture
def acme(control: Connection[Any]) -> Organization:
    return make_organization(control)


def make_organization(control: Connection[Any], *, actor: str = ACTOR) -> Organization:
    made = ids.organization_id(*random_id())
    return organizations.create(control, made, name="Acme", plan="pro", rate_limit_per_minute=None, actor=actor)


def make_key(
    control: Connection[Any], organization: str, *, actor: str = ACTOR, random: bytes | None = None
) -> tuple[api_keys.ApiKey, str]:
    return api_keys.create(
        control,
        ids.api_key_id(*random_id()),
        organization=organization,
        mode="live",
        name="ci",
        scopes=["events:write"],
        random=random or os.urandom(keys.RANDOM_BYTES),
        actor=actor,
    )


def make_endpoint(
    control: Connection[Any], organization: str, *, actor: str = ACTOR, types: list[str] | None = None, keyring: Keyring | None = None
) -> tuple[endpoints.Endpoint, str]:
    return endpoints.add(
        control,
        keyring or ring("m"),
        ids.endpoint_id(*random_id()),
        Owner(organization, "test"),
        {"url": URL, "description": "mine", "event_types": types},
        secret=os.urandom(SECRET_BYTES),
        rules=Rules(egress.Rules(), endpoints_max=50),
        actor=actor,
    )


def version(control: Connection[Any]) -> int:
    row = control.execute("SELECT version FROM control.revocation").fetchone()
    assert row is not None
    return int(row[0])


def audit_rows(control: Connection[Any]) -> list[tuple[Any, ...]]:
    return control.execute("SELECT actor, action, organization, target FROM control.audit_log ORDER BY id").fetchall()


def everything(control: Connection[Any]) -> str:
    """All that the control plane holds, as text; bytes as PostgreSQL's hexadecimal and as they are."""
    found = []
    for table in ("organizations", "api_keys", "endpoints", "endpoint_secrets", "revocation", "audit_log"):
        for row in control.execute(f"SELECT * FROM control.{table} ORDER BY 1, 2".encode()).fetchall():
            found.append(repr(row))
            found.extend(bytes(value).decode("latin-1") for value in row if isinstance(value, bytes | memoryview))
    return "\n".join(found)


def test_an_organization_is_found_and_listed_as_it_was_made(control: Connection[Any]) -> None:
    first, second = make_organization(control), make_organization(control)
    limited = organizations.create(
        control, ids.organization_id(*random_id()), name="Ærø", plan="free", rate_limit_per_minute=2**31 - 1, actor=ACTOR
    )
    assert organizations.get(control, second.id) == second
    assert organizations.list_all(control) == [first, second, limited]
    assert audit_rows(control)[1] == (ACTOR, "organization.created", second.id, second.id)
    with pytest.raises(NotThere, match="there is no organization org_none"):
        organizations.get(control, "org_none")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"plan": "gold"}, "the plan must be one of free"),
        ({"name": ""}, "the name must have"),
        ({"name": "x" * 201}, "the name must have"),
        ({"name": "a\x00b"}, "the name must have"),
        ({"rate_limit_per_minute": 0}, "the rate limit must be"),
        ({"rate_limit_per_minute": 2**31}, "the rate limit must be"),
    ],
)
def test_an_organization_that_cannot_be_is_refused_with_the_reason(control: Connection[Any], change: dict[str, Any], says: str) -> None:
    values = {"name": "Acme", "plan": "free", "rate_limit_per_minute": None, **change}
    with pytest.raises(ValueError, match=says):
        organizations.create(control, ids.organization_id(*random_id()), actor=ACTOR, **values)
    assert organizations.list_all(control) == []


async def test_a_key_is_found_by_its_prefix_and_its_text_is_stored_nowhere(
    control: Connection[Any], acme: Organization, postgres: PostgresSettings
) -> None:
    random = os.urandom(keys.RANDOM_BYTES - 1)
    # The prefix shows three of the 55 digits, the lowest: adding a multiple of 62³ keeps it and changes the rest.
    twin = (int.from_bytes(random, "big") + 62**3).to_bytes(keys.RANDOM_BYTES, "big")
    (row, text), (other, other_text) = make_key(control, acme.id, random=b"\0" + random), make_key(control, acme.id, random=twin)
    assert row.prefix == other.prefix == keys.prefix(text)
    assert text != other_text
    control.execute("UPDATE control.api_keys SET expires_at = '2030-01-01T00:00:00.250Z' WHERE id = %s", (other.id,))

    made = pool(postgres, search_path=CONTROL_SCHEMA, application="test")
    async with made as connections, connections.connection() as connection:
        found = {candidate.id: candidate for candidate in await keys.find(connection, row.prefix)}
        assert await keys.find(connection, "zap_live_---") == []
        assert await keys.revocation_version(connection) == version(control)
    assert set(found) == {row.id, other.id}
    assert keys.match(found.values(), keys.digest(text)) == found[row.id]
    assert found[row.id] == keys.KeyRow(row.id, acme.id, "live", "ci", keys.digest(text), ("events:write",), None, False, "pro", None)
    assert found[other.id].expires_at_ms == 1_893_456_000_250

    held = everything(control)
    assert row.prefix in held
    assert text not in held
    assert text[12:] not in held


async def test_a_revoked_key_stays_revoked_since_the_first_time_and_raises_the_version_once(
    control: Connection[Any], acme: Organization, postgres: PostgresSettings
) -> None:
    (row, _), (kept, _) = make_key(control, acme.id), make_key(control, acme.id)
    before = version(control)
    assert api_keys.revoke(control, row.id, actor=ACTOR) == before + 1 == version(control)
    since = control.execute("SELECT revoked_at FROM control.api_keys WHERE id = %s", (row.id,)).fetchone()
    assert api_keys.revoke(control, row.id, actor="test:bob") == before + 1 == version(control)
    assert control.execute("SELECT revoked_at FROM control.api_keys WHERE id = %s", (row.id,)).fetchone() == since
    assert [(key.id, key.revoked) for key in api_keys.list_all(control)] == [(row.id, True), (kept.id, False)]
    assert [entry for entry in audit_rows(control) if entry[1] == "api_key.revoked"] == [(ACTOR, "api_key.revoked", acme.id, row.id)]
    made = pool(postgres, search_path=CONTROL_SCHEMA, application="test")
    async with made as connections, connections.connection() as connection:
        assert [found.revoked for found in await keys.find(connection, row.prefix) if found.id == row.id] == [True]


def test_what_cannot_be_done_with_keys_is_refused_with_the_reason(control: Connection[Any], acme: Organization) -> None:
    before = version(control)
    with pytest.raises(NotThere, match="there is no API key key_none"):
        api_keys.revoke(control, "key_none", actor=ACTOR)
    with pytest.raises(NotThere, match="there is no organization org_none"):
        make_key(control, "org_none")
    for scopes, name, says in ((["admin"], "ci", "no scope admin"), ([], "ci", "at least one scope"), (["inbox:read"], "\x1b[31m", "name")):
        with pytest.raises(ValueError, match=says):
            api_keys.create(
                control, ids.api_key_id(*random_id()), organization=acme.id, mode="live", name=name, scopes=scopes,
                random=os.urandom(keys.RANDOM_BYTES), actor=ACTOR,
            )  # fmt: skip
    assert api_keys.list_all(control) == []
    assert version(control) == before


def test_an_endpoints_secret_is_sealed_for_it_and_readable_nowhere(control: Connection[Any], acme: Organization) -> None:
    made, text = make_endpoint(control, acme.id, types=["a", "b.c", "a"])
    every, _ = make_endpoint(control, acme.id)
    assert endpoints.page(control, None) == [made, every]
    assert (made.configuration.event_types, every.configuration.event_types, made.enabled) == (["a", "b.c"], None, True)
    secret = base64.b64decode(text.removeprefix("whsec_"))
    assert len(secret) == 24
    assert opened(control, made.id, ring("m")) == secret
    held = everything(control)
    for plain in (text, text.removeprefix("whsec_"), secret.decode("latin-1"), secret.hex()):
        assert plain not in held
    control.execute(
        "UPDATE control.endpoint_secrets SET ciphertext = (SELECT ciphertext FROM control.endpoint_secrets WHERE endpoint = %s)", (made.id,)
    )
    with pytest.raises(KeyringError, match="belongs to another owner"):
        opened(control, every.id, ring("m"))


def opened(control: Connection[Any], endpoint: str, keyring: Keyring) -> bytes:
    (row,) = control.execute("SELECT master_key_id, ciphertext FROM control.endpoint_secrets WHERE endpoint = %s", (endpoint,)).fetchall()
    return keyring.decrypt(row[0], bytes(row[1]), endpoint.encode())


def test_after_a_rewrap_the_old_master_key_can_be_dropped(control: Connection[Any], acme: Organization) -> None:
    made = [make_endpoint(control, acme.id, keyring=ring("o"))[0] for _ in range(2)]
    newer = make_endpoint(control, acme.id, keyring=ring("n", "o"))[0]
    secrets = [opened(control, endpoint.id, ring("n", "o")) for endpoint in (*made, newer)]
    assert endpoint_secrets.rewrap(control, ring("n", "o"), actor=ACTOR) == 2
    assert [opened(control, endpoint.id, ring("n")) for endpoint in (*made, newer)] == secrets
    assert endpoint_secrets.rewrap(control, ring("n"), actor=ACTOR) == 0
    assert [entry[1:] for entry in audit_rows(control) if entry[1] == "secrets.rewrapped"] == [("secrets.rewrapped", None, "n")]


def test_a_rewrap_that_misses_a_master_key_changes_nothing(control: Connection[Any], acme: Organization) -> None:
    first = make_endpoint(control, acme.id, keyring=ring("o"))[0]
    make_endpoint(control, acme.id, keyring=ring("x"))
    before = everything(control)
    with pytest.raises(KeyringError, match="master key x is needed"):
        endpoint_secrets.rewrap(control, ring("n", "o"), actor=ACTOR)
    assert everything(control) == before
    assert opened(control, first.id, ring("o"))


CHANGES: dict[str, Callable[[Connection[Any], Organization, str, str], object]] = {
    "organization": lambda control, acme, key, actor: make_organization(control, actor=actor),
    "key": lambda control, acme, key, actor: make_key(control, acme.id, actor=actor),
    "revoke": lambda control, acme, key, actor: api_keys.revoke(control, key, actor=actor),
    "endpoint": lambda control, acme, key, actor: make_endpoint(control, acme.id, actor=actor),
    "rewrap": lambda control, acme, key, actor: endpoint_secrets.rewrap(control, ring("n", "m"), actor=actor),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_and_its_audit_row_are_there_together_or_not_at_all(control: Connection[Any], acme: Organization, change: str) -> None:
    key = make_key(control, acme.id)[0].id
    make_endpoint(control, acme.id)
    before = everything(control)
    with pytest.raises(psycopg.errors.NotNullViolation):  # from the audit row, which comes last
        CHANGES[change](control, acme, key, cast(str, None))
    assert everything(control) == before
    rows = len(audit_rows(control))
    CHANGES[change](control, acme, key, ACTOR)
    assert everything(control) != before
    assert len(audit_rows(control)) == rows + 1
