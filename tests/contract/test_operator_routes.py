"""The operator API over a real PostgreSQL and Redis, without the rest of the system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import redis
from fastapi import FastAPI
from pydantic import SecretStr
from structlog.testing import capture_logs

from access import keys, operators
from access.epoch import epoch_key
from access.http import install
from access.operator_desk import OperatorDesk
from access.operator_routes import router
from runtime import migrations
from runtime.clock import SYSTEM
from runtime.postgres import CONTROL_SCHEMA, connect, thread_pool
from runtime.settings import PostgresSettings, RedisSettings, Settings
from schemas import ids
from tests.contract.databases import empty_database

NOWHERE = SecretStr("postgresql://u:hunter2@127.0.0.1:1/x")
NONE = ids.organization_id(1, bytes(10))
NO_KEY = ids.api_key_id(1, bytes(10))


@pytest.fixture(scope="module")
def settings_here(settings: Settings) -> Iterator[Settings]:
    epochs = RedisSettings(url=SecretStr(settings.redis.url.get_secret_value().removesuffix("/0") + "/14"))
    with empty_database(settings.postgres) as made:
        migrations.migrate(made)
        yield settings.model_copy(update={"postgres": made, "redis": epochs})


@pytest.fixture(scope="module")
def token(settings_here: Settings) -> str:
    with connect(settings_here.postgres, application="test") as connection:
        operator = ids.operator_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES))
        return operators.create(connection, operator, name="Ada", random=os.urandom(keys.RANDOM_BYTES), actor="test")[1]


@asynccontextmanager
async def serving(settings: Settings, token: str | None, *, failed_max: int = 60) -> AsyncIterator[httpx.AsyncClient]:
    pool = thread_pool(settings.postgres, search_path=CONTROL_SCHEMA, application="test", size_max=2)
    pool.open()
    app = FastAPI()
    install(app, SYSTEM)
    app.include_router(router(OperatorDesk(pool, settings.redis, SYSTEM, failed_max), SYSTEM))
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            yield client
    finally:
        await asyncio.to_thread(pool.close)


@pytest.fixture
async def client(settings_here: Settings, token: str) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings_here, token) as one:
        yield one


def slug(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"].removeprefix("urn:triggers:problem:")


async def created(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def organization(client: httpx.AsyncClient) -> str:
    return str((await created(client, "/operator/organizations", {"name": "Acme", "plan": "pro"}))["id"])


async def test_an_organization_and_its_keys_live_their_life_over_http(client: httpx.AsyncClient, settings_here: Settings) -> None:
    acme = await organization(client)
    where = f"/operator/organizations/{acme}"
    assert (await client.get(where)).json() == {
        "id": acme, "name": "Acme", "plan": "pro", "rate_limit_per_minute": None, "suspended": False, "encryption": False,
        "retention_days": None,
    }  # fmt: skip
    made = await client.post(f"{where}/keys", json={"name": "shop", "scopes": ["events:write"], "expires_in_s": 3_600})
    key = made.json()
    assert made.headers["Location"] == f"/operator/keys/{key['id']}"
    assert made.headers["Cache-Control"] == "no-store"
    assert (key["organization"], key["state"], key["mode"]) == (acme, "expiring", "live")
    shown = {name: value for name, value in key.items() if name != "key"}
    assert (await client.get(made.headers["Location"])).json() == shown
    assert (await client.get(f"{where}/keys")).json() == {"keys": [shown], "next_after": None}
    turned = await created(client, f"/operator/keys/{key['id']}/rotate", {"overlap_s": 60})
    assert (turned["new"]["rotated_from"], turned["old"]["rotated_to"], turned["effective"]) == (key["id"], turned["new"]["id"], "now")
    assert turned["new"]["key"] not in (key["key"], None)
    gone = (await client.delete(f"/operator/keys/{key['id']}")).json()
    assert (gone["state"], gone["effective"]) == ("revoked", "now")
    patched = (await client.patch(where, json={"suspended": True, "rate_limit_per_minute": 9})).json()
    assert (patched["suspended"], patched["rate_limit_per_minute"], patched["plan"], patched["effective"]) == (True, 9, "pro", "now")
    with redis.Redis.from_url(settings_here.redis.url.get_secret_value()) as held:
        epoch = held.get(epoch_key())
    assert isinstance(epoch, bytes)

    audited = (await client.get("/operator/audit", params={"organization": acme})).json()
    assert [entry["action"] for entry in audited["entries"]] == [
        "organization.updated", "organization.suspended", "api_key.revoked", "api_key.rotated", "api_key.created", "api_key.created",
        "organization.created",
    ]  # fmt: skip
    assert {entry["actor"][:13] for entry in audited["entries"]} == {"operator:opr_"}
    assert set(audited["entries"][0]) == {"id", "at", "actor", "action", "organization", "target", "detail"}
    text = str(audited)
    assert key["key"] not in text
    assert turned["new"]["key"] not in text


async def test_long_lists_come_in_pages(client: httpx.AsyncClient) -> None:
    acme = await organization(client)
    where = f"/operator/organizations/{acme}/keys"
    made = [(await created(client, where, {"name": str(n), "scopes": ["inbox:read"]}))["id"] for n in range(3)]
    first = (await client.get(where, params={"limit": 2})).json()
    assert ([key["id"] for key in first["keys"]], first["next_after"]) == (made[:2], made[1])
    rest = (await client.get(where, params={"limit": 2, "after": first["next_after"]})).json()
    assert ([key["id"] for key in rest["keys"]], rest["next_after"]) == (made[2:], None)
    page = (await client.get("/operator/audit", params={"organization": acme, "limit": 3})).json()
    rest = (await client.get("/operator/audit", params={"organization": acme, "limit": 3, "before": page["next_before"]})).json()
    assert [len(page["entries"]), len(rest["entries"]), rest["next_before"]] == [3, 1, None]
    await organization(client)
    everyone, after = [], ""
    while after is not None:
        found = (await client.get("/operator/organizations", params={"limit": 1, "after": after})).json()
        everyone += [one["id"] for one in found["organizations"]]
        after = found["next_after"]
    assert everyone == sorted(set(everyone))
    assert acme in everyone


API_KEY = keys.generate("live", bytes([3]) * keys.RANDOM_BYTES)
UNKNOWN = "zap_op_" + "0" * 57


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], (401, "missing-operator-token")),
        ([("Authorization", "")], (401, "missing-operator-token")),
        ([("Authorization", "Basic YTpi")], (401, "missing-operator-token")),
        ([("Authorization", "Bearer ")], (401, "invalid-operator-token")),
        ([("Authorization", "Bearer x")], (401, "invalid-operator-token")),
        ([("Authorization", f"Bearer {UNKNOWN}")], (401, "invalid-operator-token")),
        ([("Authorization", f"Bearer {UNKNOWN}\xff")], (401, "invalid-operator-token")),
        ([("Authorization", "Bearer " + "x" * 10_000)], (401, "invalid-operator-token")),
        ([("Authorization", f"Bearer {API_KEY}")], (403, "forbidden")),
        ([("X-API-Key", API_KEY)], (403, "forbidden")),
        ([("Authorization", f"Bearer {UNKNOWN}"), ("X-API-Key", API_KEY)], (403, "forbidden")),
        ([("Authorization", f"Bearer {UNKNOWN}"), ("Authorization", "Bearer x")], (400, "invalid-header")),
    ],
)
async def test_only_an_operators_token_opens_any_route(
    settings_here: Settings, headers: list[tuple[str, str]], expected: tuple[int, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    async with serving(settings_here, None) as client:
        for method, path in (
            ("GET", "/operator/organizations"), ("POST", "/operator/organizations"), ("GET", f"/operator/organizations/{NONE}"),
            ("PATCH", f"/operator/organizations/{NONE}"), ("GET", f"/operator/organizations/{NONE}/keys"),
            ("POST", f"/operator/organizations/{NONE}/keys"), ("GET", f"/operator/keys/{NO_KEY}"), ("DELETE", f"/operator/keys/{NO_KEY}"),
            ("POST", f"/operator/keys/{NO_KEY}/rotate"), ("GET", "/operator/audit"), ("GET", "/operator/audit?limit=nonsense"),
        ):  # fmt: skip
            answer = await client.request(method, path, headers=raw)
            assert slug(answer) == expected, (method, path)
            assert ("WWW-Authenticate" in answer.headers) == (expected[0] == 401)
            assert "0000000000" not in answer.text


async def test_a_token_is_matched_whole_and_revoked_at_once(settings_here: Settings) -> None:
    with connect(settings_here.postgres, application="test") as connection:
        operator = ids.operator_id(SYSTEM.now_ms(), os.urandom(ids.RANDOM_BYTES))
        _, token = operators.create(connection, operator, name="Bob", random=os.urandom(keys.RANDOM_BYTES), actor="test")
    async with serving(settings_here, token) as client:
        assert (await client.get("/operator/audit")).status_code == 200
        assert (await client.get("/operator/audit", headers={"Authorization": f"bearer {token}"})).status_code == 200
        for wrong in (token[:-1] + ("a" if token[-1] != "a" else "b"), token.upper(), token + "0", keys.digest(token).hex()):
            answer = await client.get("/operator/audit", headers={"Authorization": f"Bearer {wrong}"})
            assert slug(answer) == (401, "invalid-operator-token")
        with connect(settings_here.postgres, application="test") as connection:
            operators.revoke(connection, operator, actor="test")
        assert slug(await client.get("/operator/audit")) == (401, "invalid-operator-token")


async def test_an_address_with_too_many_bad_tokens_waits(settings_here: Settings, token: str) -> None:
    async with serving(settings_here, None, failed_max=3) as client:
        answers = [await client.get("/operator/audit", headers={"Authorization": "Bearer wrong"}) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/operator/organizations", {"name": ""}, (422, "invalid-request")),
        ("POST", "/operator/organizations", {"name": "a\x00b"}, (422, "invalid-request")),
        ("POST", "/operator/organizations", {"name": "Acme", "plan": "gold"}, (422, "invalid-request")),
        ("POST", "/operator/organizations", {"name": "Acme", "colour": "red"}, (422, "invalid-request")),
        ("POST", "/operator/organizations", {"name": "Acme", "rate_limit_per_minute": 2**31}, (422, "invalid-request")),
        ("POST", "/operator/organizations", b"{", (400, "malformed-json")),
        ("POST", "/operator/organizations", b"", (400, "malformed-json")),
        ("POST", "/operator/organizations", b"[" * 10_000, (422, "invalid-request")),
        ("POST", "/operator/organizations", b'{"name":"Acme","plan":"free","plan":"enterprise"}', (422, "invalid-request")),
        (
            "POST",
            "/operator/organizations",
            b'{"name":"Acme","rate_limit_per_minute":1,"rate_limit_per_minut\\u0065":2}',
            (422, "invalid-request"),
        ),
        ("POST", "/operator/organizations", b'{"name": "' + b"x" * 20_000, (413, "body-too-large")),
        ("GET", f"/operator/organizations/{NONE}", None, (404, "not-found")),
        ("GET", f"/operator/organizations/{NONE}/keys", None, (404, "not-found")),
        ("PATCH", f"/operator/organizations/{NONE}", {"plan": "free"}, (404, "not-found")),
        ("POST", f"/operator/organizations/{NONE}/keys", {"name": "a", "scopes": ["inbox:ack"]}, (404, "not-found")),
        ("POST", f"/operator/organizations/{NONE}/keys", {"name": "a", "scopes": []}, (422, "invalid-request")),
        ("POST", f"/operator/organizations/{NONE}/keys", {"name": "a", "scopes": ["admin"]}, (422, "invalid-request")),
        ("GET", "/operator/organizations/org_none", None, (400, "invalid-parameter")),
        ("GET", "/operator/organizations/%00", None, (400, "invalid-parameter")),
        ("GET", "/operator/organizations?after=%00", None, (400, "invalid-parameter")),
        ("GET", "/operator/organizations?limit=1001", None, (400, "invalid-parameter")),
        ("GET", "/operator/audit?before=0", None, (400, "invalid-parameter")),
        ("GET", "/operator/audit?organization=%00", None, (400, "invalid-parameter")),
        ("GET", f"/operator/keys/{NO_KEY}", None, (404, "not-found")),
        ("DELETE", f"/operator/keys/{NO_KEY}", None, (404, "not-found")),
        ("POST", f"/operator/keys/{NO_KEY}/rotate", {}, (404, "not-found")),
        ("POST", f"/operator/keys/{NO_KEY}/rotate", {"overlap_s": -1}, (422, "invalid-request")),
        ("PUT", f"/operator/keys/{NO_KEY}", None, (405, "method-not-allowed")),
    ],
)
async def test_what_cannot_be_done_is_a_problem(
    client: httpx.AsyncClient, method: str, path: str, body: bytes | dict[str, Any] | None, expected: tuple[int, str]
) -> None:
    content: dict[str, Any] = (
        {"json": body} if isinstance(body, dict) else {"content": body, "headers": {"Content-Type": "application/json"}}
    )
    assert slug(await client.request(method, path, **content)) == expected


@pytest.mark.parametrize(
    "expiry",
    [{"expires_in_s": 60, "expires_at": "2031-01-01T00:00:00Z"}, {"expires_at": "2001-01-01T00:00:00Z"}, {"expires_at": "2031-01-01"}],
)
async def test_an_expiry_that_cannot_be_is_refused(client: httpx.AsyncClient, expiry: dict[str, Any]) -> None:
    where = f"/operator/organizations/{await organization(client)}/keys"
    assert slug(await client.post(where, json={"name": "a", "scopes": ["inbox:ack"], **expiry})) == (422, "invalid-request")
    assert (await client.get(where)).json()["keys"] == []


async def test_a_key_that_is_over_is_not_rotated_and_a_form_post_is_no_json(client: httpx.AsyncClient) -> None:
    where = f"/operator/organizations/{await organization(client)}/keys"
    key = (await created(client, where, {"name": "a", "scopes": ["inbox:ack"]}))["id"]
    assert slug(await client.post(f"/operator/keys/{key}/rotate", content=b"{}")) == (415, "unsupported-media-type")
    await client.delete(f"/operator/keys/{key}")
    assert slug(await client.post(f"/operator/keys/{key}/rotate", json={})) == (409, "not-possible")


async def test_without_redis_a_change_holds_and_says_that_it_takes_seconds(settings_here: Settings, token: str) -> None:
    alone = settings_here.model_copy(update={"redis": RedisSettings(url=SecretStr("redis://127.0.0.1:1/0"))})
    async with serving(alone, token) as client:
        acme = await organization(client)
        assert (await client.patch(f"/operator/organizations/{acme}", json={"suspended": True})).json()["effective"] == "within 5 s"


async def test_without_postgres_every_answer_is_503_and_no_secret_is_logged(settings_here: Settings, token: str) -> None:
    away: PostgresSettings = settings_here.postgres.model_copy(update={"dsn": NOWHERE, "connect_timeout_s": 0.3})
    with capture_logs() as logged:
        async with serving(settings_here.model_copy(update={"postgres": away}), token) as client:
            answer = await client.get("/operator/organizations")
            assert slug(answer) == (503, "unavailable")
            assert "Retry-After" in answer.headers
            assert slug(await client.get("/operator/audit", headers={"Authorization": "Bearer wrong"})) == (401, "invalid-operator-token")
    assert token not in str(logged)
    assert "hunter2" not in str(logged)


async def test_the_documentation_names_every_route_with_examples_and_the_token(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["operator"]["scheme"] == "bearer"
    routes = [route for methods in document["paths"].values() for route in methods.values()]
    assert len(routes) == 10
    for route in routes:
        assert route["security"] == [{"operator": []}]
        assert {"401", "403", "429", "503"} <= set(route["responses"])
        answered = next(answer for status, answer in route["responses"].items() if status.startswith("2"))
        assert answered["content"]["application/json"]["examples"]
