from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import psycopg
import pytest
from psycopg import Connection

from access import egress, endpoint_secrets, endpoints, organizations
from access.changes import LimitReached, Owner, TooManyChanges
from access.endpoint_bodies import Rules
from access.endpoints import Endpoint
from access.organizations import NotPossible, NotThere
from access.secrets import Keyring
from delivery.endpoints import Endpoints, LegacySignature
from runtime.clock import SYSTEM
from runtime.postgres import CONTROL_SCHEMA, connect, pool
from runtime.settings import PostgresSettings
from schemas import ids
from tests.contract.new_ids import random_id

ACTOR = "key:key_1"
URL = "https://receiver.example/hooks"
RULES = Rules(egress.Rules(), endpoints_max=3)
RING = Keyring({"m": b"m" * 32}, "m")
FULL: dict[str, Any] = {
    "url": URL, "description": "Orders", "event_types": ["order.*", "refund"],
    "headers": {"X-Tenant": "17", "Authorization": "Bearer s3cr3t"},
    "rate_per_minute": 60, "concurrency": 2, "schedule_s": [1, 2.5], "deadline_s": 5,
    "legacy_signature": {"header": "X-Sig", "scheme": "t-v1-hex"},
}  # fmt: skip


def make_owner(control: Connection[Any]) -> Owner:
    made = ids.organization_id(*random_id())
    organizations.create(control, made, name="Acme", plan="pro", rate_limit_per_minute=None, actor=ACTOR)
    control.execute("DELETE FROM control.audit_log")
    return Owner(made, "live")


@pytest.fixture
def owner(control: Connection[Any]) -> Owner:
    return make_owner(control)


def add(control: Connection[Any], owner: Owner, actor: str = ACTOR, secret: bytes = b"s" * 24, **members: Any) -> Endpoint:
    made = ids.endpoint_id(*random_id())
    return endpoints.add(control, RING, made, owner, {"url": URL, **members}, secret=secret, rules=RULES, actor=actor)[0]


def update(control: Connection[Any], owner: Owner | None, endpoint: str, actor: str = ACTOR, **patch: Any) -> Endpoint:
    return endpoints.update(control, owner, endpoint, patch, rules=RULES, actor=actor)


def rotate(
    control: Connection[Any], owner: Owner | None, endpoint: str, actor: str = ACTOR, secret: bytes = b"n" * 24, overlap_s: int = 60
) -> str:
    return endpoints.rotate_secret(control, RING, owner, endpoint, secret=secret, given=False, overlap_s=overlap_s, actor=actor)[1]


def audited(control: Connection[Any]) -> list[tuple[Any, ...]]:
    return control.execute("SELECT actor, action, organization, target, detail FROM control.audit_log ORDER BY id").fetchall()


def everything(control: Connection[Any]) -> list[Any]:
    return [control.execute(f"SELECT * FROM control.{t} ORDER BY 1, 2".encode()).fetchall() for t in _TABLES]


_TABLES = ("endpoints", "endpoint_secrets", "audit_log")


async def seen_by_delivery(postgres: PostgresSettings, owner: Owner) -> list[Any]:
    async with pool(postgres, search_path=CONTROL_SCHEMA, application="test") as connections:
        return (await Endpoints(connections, RING, SYSTEM, "w", (30.0, 120.0)).of([owner])).get(owner, [])


def test_an_endpoint_is_found_and_listed_as_it_was_made_and_audited_without_its_secrets(control: Connection[Any], owner: Owner) -> None:
    made = add(control, owner, **FULL)
    assert endpoints.get(control, owner, made.id) == made == endpoints.get(control, None, made.id)
    assert endpoints.page(control, owner) == [made]
    shown = made.shown(header_values=True)
    assert {name: shown[name] for name in FULL} == {**FULL, "deadline_s": 5.0}
    assert (shown["schedule"], shown["enabled"], shown["header_names"]) == ("custom", True, ["X-Tenant", "Authorization"])
    assert "s3cr3t" not in repr(made.shown())
    ((actor, action, organization, target, detail),) = audited(control)
    assert (actor, action, organization, target) == (ACTOR, "endpoint.created", owner.organization, made.id)
    assert detail["configuration"]["headers"] == ["Authorization", "X-Tenant"]
    assert (detail["mode"], detail["url"], detail["configuration"]["schedule_s"]) == ("live", URL, [1, 2.5])
    for secret in ("s3cr3t", endpoint_secrets.secret_text(b"s" * 24), "ssss"):
        assert secret not in repr(everything(control)[2])


def test_a_patch_changes_what_it_names_and_says_so_in_the_audit_log(control: Connection[Any], owner: Owner) -> None:
    made = add(control, owner, **FULL)
    changed = update(control, owner, made.id, headers={"Authorization": None, "X-New": "1"}, event_types=None, schedule="standard")
    assert changed.configuration.headers == {"X-Tenant": "17", "X-New": "1"}
    assert (changed.configuration.event_types, changed.configuration.schedule, changed.configuration.schedule_s) == (None, "standard", None)
    kept = ("url", "description", "rate_per_minute", "concurrency", "deadline_s", "legacy_signature")
    assert all(getattr(changed.configuration, name) == getattr(made.configuration, name) for name in kept)
    assert changed.updated_at_ms >= made.updated_at_ms
    assert audited(control)[-1][1] == "endpoint.updated"
    assert audited(control)[-1][4] == {
        "mode": "live", "url": URL, "changed": ["event_types", "headers", "schedule", "schedule_s"],
        "before": {
            "event_types": ["order.*", "refund"], "headers": ["Authorization", "X-Tenant"], "schedule": "custom", "schedule_s": [1, 2.5],
        },
        "after": {"event_types": None, "headers": ["X-New", "X-Tenant"], "schedule": "standard", "schedule_s": None},
    }  # fmt: skip
    before = everything(control)
    assert update(control, owner, made.id, schedule="standard", description="Orders") == changed
    assert everything(control) == before, "what changes nothing is not audited"
    update(control, owner, made.id, headers={"X-New": "a new value"})
    assert audited(control)[-1][4]["changed"] == ["headers"]
    assert "a new value" not in repr(audited(control))


def test_disabled_is_remembered_with_the_first_reason_until_enabled(control: Connection[Any], owner: Owner) -> None:
    made = add(control, owner)
    control.execute("UPDATE control.endpoints SET failing_since = now()")
    off = endpoints.disable(control, owner, made.id, reason="owner", actor=ACTOR)
    assert (off.enabled, off.disabled_reason, off.disabled_at_ms is not None) == (False, "owner", True)
    assert endpoints.disable(control, None, made.id, reason="operator", actor="cli:ada") == off
    on = endpoints.enable(control, owner, made.id, actor=ACTOR)
    assert (on.enabled, on.disabled_reason, on.disabled_at_ms, on.failing_since_ms) == (True, None, None, None)
    assert endpoints.enable(control, owner, made.id, actor=ACTOR) == on
    assert [(row[1], row[4].get("reason"), row[4].get("was")) for row in audited(control)] == [
        ("endpoint.created", None, None), ("endpoint.disabled", "owner", None), ("endpoint.enabled", None, "owner"),
    ]  # fmt: skip


async def test_a_deleted_endpoint_is_gone_with_its_secrets_and_stays_its_owners_to_look_back_at(
    control: Connection[Any], owner: Owner, postgres: PostgresSettings
) -> None:
    made, other = add(control, owner, **FULL), make_owner(control)
    endpoints.delete(control, owner, made.id, actor=ACTOR)
    assert endpoints.page(control, owner) == [] == endpoints.page(control, None)
    assert await seen_by_delivery(postgres, owner) == []
    assert control.execute("SELECT count(*) FROM control.endpoint_secrets").fetchone() == (0,)
    assert "s3cr3t" not in repr(everything(control))
    assert audited(control)[-1][:4] == (ACTOR, "endpoint.deleted", owner.organization, made.id)
    for call in touching(control, owner, made.id):
        with pytest.raises(NotThere):
            call()
    async with pool(postgres, search_path="public", application="test") as connections, connections.connection() as connection:
        assert await endpoints.is_or_was_of(connection, owner, made.id)
        for stranger in (other, owner._replace(mode="test")):
            assert not await endpoints.is_or_was_of(connection, stranger, made.id)


def touching(control: Connection[Any], owner: Owner, endpoint: str) -> list[Callable[[], object]]:
    return [
        lambda: endpoints.get(control, owner, endpoint),
        lambda: update(control, owner, endpoint, description="mine now"),
        lambda: endpoints.enable(control, owner, endpoint, actor=ACTOR),
        lambda: endpoints.disable(control, owner, endpoint, reason="owner", actor=ACTOR),
        lambda: endpoints.delete(control, owner, endpoint, actor=ACTOR),
        lambda: rotate(control, owner, endpoint),
    ]


def test_what_is_another_organizations_or_modes_is_told_from_nothing_by_nobody(control: Connection[Any], owner: Owner) -> None:
    made, other = add(control, owner), make_owner(control)
    before = everything(control)
    said = set()
    for stranger in (other, owner._replace(mode="test")):
        for endpoint in (made.id, made.id[:-1] + "0", "ep_", "\0", "'", "x" * 5_000):
            for call in touching(control, stranger, endpoint):
                with pytest.raises(NotThere) as raised:
                    call()
                said.add(str(raised.value))
        assert endpoints.page(control, stranger) == []
    assert len(said) == 1
    assert everything(control) == before


def test_pages_go_by_age_without_gap_or_repeat(control: Connection[Any], owner: Owner) -> None:
    made = [add(control, owner) for _ in range(3)]
    add(control, owner._replace(mode="test"))
    first = endpoints.page(control, owner, limit=2)
    assert first + endpoints.page(control, owner, after=first[-1].id) == sorted(made, key=lambda one: one.id)


def test_an_organization_and_mode_has_a_bounded_number_of_endpoints(control: Connection[Any], owner: Owner) -> None:
    made = [add(control, owner) for _ in range(3)]
    before = everything(control)
    with pytest.raises(LimitReached, match="there may be 3 endpoints"):
        add(control, owner)
    assert everything(control) == before
    add(control, owner._replace(mode="test"))
    endpoints.delete(control, owner, made[0].id, actor=ACTOR)
    add(control, owner)


def test_changes_that_come_too_fast_are_held_back(control: Connection[Any], owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    made = add(control, owner)
    monkeypatch.setattr(endpoints, "CHANGES_PER_MINUTE_MAX", 2)
    update(control, owner, made.id, description="2")
    before = everything(control)
    for call in touching(control, owner, made.id)[1:]:
        with pytest.raises(TooManyChanges, match="endpoints may be changed 2 times a minute"):
            call()
    assert everything(control) == before
    add(control, make_owner(control))
    endpoints.disable(control, None, made.id, reason="operator", actor=ACTOR)  # an operator need not wait
    control.execute("UPDATE control.audit_log SET at = at - interval '61 seconds'")
    update(control, owner, made.id, description="3")


CHANGES: dict[str, Callable[[Connection[Any], Owner, str, str], object]] = {
    "added": lambda control, owner, endpoint, actor: add(control, owner, actor),
    "updated": lambda control, owner, endpoint, actor: update(control, owner, endpoint, actor, description="other"),
    "disabled": lambda control, owner, endpoint, actor: endpoints.disable(control, owner, endpoint, reason="owner", actor=actor),
    "deleted": lambda control, owner, endpoint, actor: endpoints.delete(control, owner, endpoint, actor=actor),
    "rotated": rotate,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_and_its_audit_row_are_there_together_or_not_at_all(control: Connection[Any], owner: Owner, change: str) -> None:
    made = add(control, owner)
    before, rows = everything(control), len(audited(control))
    with pytest.raises(psycopg.errors.NotNullViolation):
        CHANGES[change](control, owner, made.id, cast(str, None))
    assert everything(control) == before
    CHANGES[change](control, owner, made.id, ACTOR)
    assert len(audited(control)) == rows + 1


async def test_old_and_new_secret_both_sign_during_the_overlap_and_then_only_the_new(
    control: Connection[Any], owner: Owner, postgres: PostgresSettings
) -> None:
    made = add(control, owner, secret=b"1" * 24)
    text = rotate(control, owner, made.id, secret=b"2" * 24, overlap_s=60)
    assert endpoint_secrets.parse_secret(text) == b"2" * 24
    assert [one.secrets for one in await seen_by_delivery(postgres, owner)] == [(b"2" * 24, b"1" * 24)]
    newest, old = endpoints.secrets_of(control, made)
    assert (newest.number, newest.expires_at_ms, old.number) == (2, None, 1)
    assert old.expires_at_ms is not None
    assert 0 < old.expires_at_ms - newest.created_at_ms <= 60_000
    assert audited(control)[-1][4] == {"mode": "live", "url": URL, "secret": 2, "given": False, "overlap_s": 60}
    control.execute("UPDATE control.endpoint_secrets SET expires_at = now() WHERE id = 1")
    assert [one.secrets for one in await seen_by_delivery(postgres, owner)] == [(b"2" * 24,)]


async def test_a_longer_overlap_revives_no_older_secret_and_none_at_all_ends_every_one(
    control: Connection[Any], owner: Owner, postgres: PostgresSettings
) -> None:
    made = add(control, owner, secret=b"1" * 24)
    rotate(control, owner, made.id, secret=b"2" * 24, overlap_s=10)
    ends = endpoints.secrets_of(control, made)[-1].expires_at_ms
    rotate(control, owner, made.id, secret=b"3" * 24, overlap_s=604_800)
    assert [one.number for one in endpoints.secrets_of(control, made)] == [3, 2, 1]
    assert endpoints.secrets_of(control, made)[-1].expires_at_ms == ends
    rotate(control, owner, made.id, secret=b"4" * 24, overlap_s=0)
    assert [one.secrets for one in await seen_by_delivery(postgres, owner)] == [(b"4" * 24,)]
    assert control.execute("SELECT count(*) FROM control.endpoint_secrets").fetchone() == (1,), "what is over is kept nowhere"


def test_no_more_than_five_secrets_sign_at_once(control: Connection[Any], owner: Owner) -> None:
    made = add(control, owner)
    for _ in range(4):
        rotate(control, owner, made.id)
    before = everything(control)
    with pytest.raises(NotPossible, match="5 secrets sign already"):
        rotate(control, owner, made.id)
    assert everything(control) == before
    rotate(control, owner, made.id, overlap_s=0)
    assert [one.number for one in endpoints.secrets_of(control, made)] == [6]
    for overlap_s in (-1, 604_801):
        with pytest.raises(ValueError, match="the overlap must be 0 to 604800 seconds"):
            rotate(control, owner, made.id, overlap_s=overlap_s)


async def test_delivery_reads_what_an_endpoint_was_told(control: Connection[Any], owner: Owner, postgres: PostgresSettings) -> None:
    add(control, owner, **FULL)
    add(control, owner, schedule="standard")
    add(control, owner)
    full, standard, plain = sorted(await seen_by_delivery(postgres, owner), key=lambda one: one.id)
    assert (full.headers, full.rate_per_minute, full.concurrency, full.schedule_s, full.deadline_s, full.legacy_signature) == (
        FULL["headers"], 60, 2, (1.0, 2.5), 5.0, LegacySignature("X-Sig", "t-v1-hex"),
    )  # fmt: skip
    assert (full.takes("order.paid.late"), full.takes("refund"), full.takes("order")) == (True, True, False)
    assert (len(standard.schedule_s), sum(standard.schedule_s[:2])) == (9, 305.0)
    assert (plain.headers, plain.rate_per_minute, plain.concurrency, plain.schedule_s, plain.deadline_s, plain.legacy_signature) == (
        {}, None, None, (30.0, 120.0), None, None,
    )  # fmt: skip


async def test_an_endpoint_that_answered_410_is_disabled_since_then_until_its_owner_enables_it(
    control: Connection[Any], owner: Owner, postgres: PostgresSettings
) -> None:
    made = add(control, owner)
    async with pool(postgres, search_path=CONTROL_SCHEMA, application="test") as connections:
        await Endpoints(connections, RING, SYSTEM, "w", ()).disable_gone(made.id)
    gone = endpoints.get(control, owner, made.id)
    assert (gone.enabled, gone.disabled_reason, gone.disabled_at_ms is not None) == (False, "gone", True)
    assert [one.enabled for one in await seen_by_delivery(postgres, owner)] == [False]  # what comes is counted as held
    endpoints.enable(control, owner, made.id, actor=ACTOR)
    assert [(one.id, one.enabled) for one in await seen_by_delivery(postgres, owner)] == [(made.id, True)]


def test_changes_of_one_organization_come_one_after_the_other(control: Connection[Any], owner: Owner, postgres: PostgresSettings) -> None:
    made = add(control, owner)
    with connect(postgres, application="test") as other:
        other.autocommit = True
        with other.transaction():
            endpoints._held(other, owner, made.id)
            control.execute("SET lock_timeout = '200ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                add(control, owner)
            with pytest.raises(psycopg.errors.LockNotAvailable):
                update(control, owner, made.id, description="x")
            add(control, make_owner(control))
    update(control, owner, made.id, description="x")
