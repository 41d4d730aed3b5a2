"""Keys, organizations and operators as they change, on a real PostgreSQL: states, rotation, suspension, last use, the audit log."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, cast

import psycopg
import pytest
from psycopg import Connection

from access import api_keys, audit, keys, operators, organizations
from access.api_keys import ApiKey
from access.last_used import LastUsed
from access.organizations import Change, NotPossible, NotThere, Organization
from runtime.clock import SYSTEM
from runtime.postgres import CONTROL_SCHEMA, connect, pool
from runtime.settings import PostgresSettings
from schemas import ids
from tests.contract.new_ids import random_id
from tests.contract.test_control_plane import everything, version

ACTOR = "test:ada"
DAY_MS = 86_400_000


@pytest.fixture
def acme(control: Connection[Any]) -> Organization:
    return organizations.create(
        control, ids.organization_id(*random_id()), name="Acme", plan="pro", rate_limit_per_minute=None, actor=ACTOR
    )


def make(control: Connection[Any], organization: str, *, expires_at_ms: int | None = None, actor: str = ACTOR) -> tuple[ApiKey, str]:
    return api_keys.create(
        control,
        ids.api_key_id(*random_id()),
        organization=organization,
        mode="test",
        name="shop",
        scopes=["events:write", "event_types:manage"],
        random=os.urandom(keys.RANDOM_BYTES),
        expires_at_ms=expires_at_ms,
        actor=actor,
    )


def rotate(control: Connection[Any], key: str, *, overlap_s: int = 3_600, actor: str = ACTOR) -> api_keys.Rotated:
    random = os.urandom(keys.RANDOM_BYTES)
    return api_keys.rotate(control, key, ids.api_key_id(*random_id()), overlap_s=overlap_s, random=random, actor=actor)


def entries(control: Connection[Any], count: int) -> list[audit.Entry]:
    """The newest ones, oldest first."""
    return audit.page(control, None, before=2**63 - 1, limit=count)[::-1]


def test_a_key_that_expires_says_so_in_its_row_its_audit_row_and_its_state(control: Connection[Any], acme: Organization) -> None:
    now_ms = SYSTEM.now_ms()
    lasting, _ = make(control, acme.id)
    soon, _ = make(control, acme.id, expires_at_ms=now_ms + DAY_MS)
    later, _ = make(control, acme.id, expires_at_ms=now_ms + 90 * DAY_MS)
    assert api_keys.list_all(control) == [lasting, soon, later] == [api_keys.get(control, key.id) for key in (lasting, soon, later)]
    assert (lasting.expires_at_ms, soon.expires_at_ms) == (None, now_ms + DAY_MS)
    assert abs(lasting.created_at_ms - now_ms) < 60_000
    assert [key.state(now_ms) for key in (lasting, soon, later)] == ["active", "expiring", "active"]
    assert [soon.state(now_ms + DAY_MS), later.state(now_ms + 84 * DAY_MS)] == ["expired", "expiring"]
    api_keys.revoke(control, soon.id, actor=ACTOR)
    assert api_keys.get(control, soon.id).state(now_ms + 2 * DAY_MS) == "revoked"
    assert [entry.detail["expires_at"] for entry in entries(control, 4)[:3]] == [
        None,
        soon.shown(now_ms)["expires_at"],
        later.shown(0)["expires_at"],
    ]


@pytest.mark.parametrize("away_ms", [-1_000, 0, 11 * 366 * DAY_MS])
def test_an_expiry_that_is_over_or_beyond_reason_is_refused_and_leaves_nothing(
    control: Connection[Any], acme: Organization, away_ms: int
) -> None:
    before = everything(control)
    with pytest.raises(ValueError, match="the expiry must lie in the future"):
        make(control, acme.id, expires_at_ms=SYSTEM.now_ms() + away_ms)
    assert everything(control) == before


def test_a_rotation_gives_a_like_key_ends_the_old_one_later_and_links_both(control: Connection[Any], acme: Organization) -> None:
    key, text = make(control, acme.id)
    before, now_ms = version(control), SYSTEM.now_ms()
    done = rotate(control, key.id)
    new, old = api_keys.get(control, done.new.id), api_keys.get(control, key.id)
    assert (new, old) == (done.new, done.old)
    assert (new.organization, new.mode, new.name, new.scopes, new.expires_at_ms) == (acme.id, "test", "shop", key.scopes, None)
    assert (new.rotated_from, new.rotated_to, old.rotated_from, old.rotated_to) == (key.id, None, None, new.id)
    assert old.expires_at_ms is not None
    assert abs(old.expires_at_ms - now_ms - 3_600_000) < 60_000
    assert old.state(now_ms) == "expiring"
    assert done.version == before + 1 == version(control)
    assert done.text != text
    assert done.text.startswith(new.prefix)
    assert done.text not in everything(control)
    made, ended = entries(control, 2)
    assert (made.actor, made.action, made.organization, made.target) == (ACTOR, "api_key.created", acme.id, new.id)
    assert made.detail["rotated_from"] == key.id
    assert (ended.actor, ended.action, ended.organization, ended.target) == (ACTOR, "api_key.rotated", acme.id, key.id)
    ends_at = old.shown(now_ms)["expires_at"]
    assert ended.detail == {"before": {"expires_at": None}, "after": {"expires_at": ends_at, "rotated_to": new.id}, "overlap_s": 3_600}


def test_a_rotated_key_keeps_its_lifetime_and_an_overlap_never_prolongs_the_old_one(control: Connection[Any], acme: Organization) -> None:
    key, _ = make(control, acme.id, expires_at_ms=SYSTEM.now_ms() + DAY_MS)
    assert key.expires_at_ms is not None
    done = rotate(control, key.id, overlap_s=2 * 86_400)
    assert done.old.expires_at_ms == key.expires_at_ms
    assert done.new.expires_at_ms is not None
    assert abs(done.new.expires_at_ms - done.new.created_at_ms - (key.expires_at_ms - key.created_at_ms)) <= 1


def test_a_key_that_is_over_or_rotated_before_is_not_rotated(control: Connection[Any], acme: Organization) -> None:
    gone, turned, ended = (make(control, acme.id)[0] for _ in range(3))
    api_keys.revoke(control, gone.id, actor=ACTOR)
    successor = rotate(control, turned.id, overlap_s=0).new
    control.execute("UPDATE control.api_keys SET expires_at = now() - interval '1 s' WHERE id = %s", (ended.id,))
    long = rotate(control, successor.id).new
    before = everything(control)
    for key, says in (
        (gone, "is revoked: create a new one"),
        (ended, "is expired: create a new one"),
        (turned, "is expired: create a new one"),
        (successor, f"was rotated to {long.id} before: rotate that one"),
    ):
        with pytest.raises(NotPossible, match=says):
            rotate(control, key.id)
    with pytest.raises(NotThere, match="there is no API key key_none"):
        rotate(control, "key_none")
    for overlap_s in (-1, 91 * 86_400):
        with pytest.raises(ValueError, match="the overlap must be"):
            rotate(control, long.id, overlap_s=overlap_s)
    assert everything(control) == before


def test_of_rotations_at_once_one_succeeds(control: Connection[Any], acme: Organization, postgres: PostgresSettings) -> None:
    key, _ = make(control, acme.id)
    together = Barrier(4)

    def once(_: int) -> str:
        with connect(postgres, application="test") as connection:
            connection.autocommit = True
            together.wait(30)
            try:
                return rotate(connection, key.id).new.id
            except NotPossible:
                return "refused"

    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(once, range(4)))
    assert outcomes.count("refused") == 3
    assert len(api_keys.list_all(control)) == 2


def test_an_organization_changes_with_what_it_was_and_what_it_is(control: Connection[Any], acme: Organization) -> None:
    before = version(control)
    changed, raised = organizations.update(control, acme.id, {"plan": "free", "rate_limit_per_minute": 5}, actor=ACTOR)
    assert organizations.get(control, acme.id) == changed == acme._replace(plan="free", rate_limit_per_minute=5)
    assert raised == before + 1 == version(control)
    (entry,) = entries(control, 1)
    assert (entry.actor, entry.action, entry.organization, entry.target) == (ACTOR, "organization.updated", acme.id, acme.id)
    assert entry.detail == {
        "before": {"plan": "pro", "rate_limit_per_minute": None},
        "after": {"plan": "free", "rate_limit_per_minute": 5},
    }
    back, _ = organizations.update(control, acme.id, {"rate_limit_per_minute": None, "name": "Acme & Sons"}, actor=ACTOR)
    assert (back.rate_limit_per_minute, back.name) == (None, "Acme & Sons")


def test_what_is_so_already_is_not_audited_and_still_tells_which_version_caches_must_see(
    control: Connection[Any], acme: Organization
) -> None:
    before = everything(control)
    changes: list[Change] = [{}, {"plan": "pro"}, {"suspended": False, "name": "Acme"}]
    for change in changes:
        assert organizations.update(control, acme.id, change, actor=ACTOR) == (acme, version(control))
    assert everything(control) == before


async def test_a_suspended_organizations_keys_say_so_until_it_is_resumed(
    control: Connection[Any], acme: Organization, postgres: PostgresSettings
) -> None:
    key, text = make(control, acme.id)
    before = version(control)
    made = pool(postgres, search_path=CONTROL_SCHEMA, application="test")
    async with made as connections, connections.connection() as connection:
        for suspended, action in ((True, "organization.suspended"), (False, "organization.resumed")):
            assert organizations.update(control, acme.id, {"suspended": suspended}, actor=ACTOR)[0].suspended is suspended
            (found,) = [row for row in await keys.find(connection, keys.prefix(text)) if row.id == key.id]
            assert found.suspended is suspended
            (entry,) = entries(control, 1)
            assert (entry.action, entry.detail) == (action, {"before": {"suspended": not suspended}, "after": {"suspended": suspended}})
    assert version(control) == before + 2
    organizations.update(control, acme.id, {"suspended": True, "plan": "free"}, actor=ACTOR)
    assert [entry.action for entry in entries(control, 2)] == ["organization.suspended", "organization.updated"]


def test_a_suspension_keeps_the_time_it_began(control: Connection[Any], acme: Organization) -> None:
    def since() -> object:
        return control.execute("SELECT suspended_at FROM control.organizations").fetchone()

    organizations.update(control, acme.id, {"suspended": True}, actor=ACTOR)
    began = since()
    organizations.update(control, acme.id, {"suspended": True, "name": "Other"}, actor=ACTOR)
    assert since() == began != (None,)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"plan": "gold"}, "the plan must be"), ({"name": "\x1b"}, "the name"), ({"rate_limit_per_minute": 0}, "the rate limit")],
)
def test_an_organization_that_could_not_be_made_cannot_become_so(
    control: Connection[Any], acme: Organization, change: Change, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        organizations.update(control, acme.id, change, actor=ACTOR)
    assert organizations.get(control, acme.id) == acme
    with pytest.raises(NotThere):
        organizations.update(control, "org_none", {"plan": "free"}, actor=ACTOR)


async def test_last_uses_are_written_in_one_statement_and_never_go_back(
    control: Connection[Any], acme: Organization, postgres: PostgresSettings
) -> None:
    (first, _), (second, _), (idle, _) = (make(control, acme.id) for _ in range(3))

    class At:
        now = 1_800_000_000_123

        def now_ms(self) -> int:
            return self.now

        def monotonic_s(self) -> float:
            return 0.0

    clock = At()
    ahead, behind = LastUsed(clock), LastUsed(clock)
    for key in (second.id, first.id, "key_of_nobody"):
        ahead.note(key)
    clock.now -= 60_000
    behind.note(first.id)
    made = pool(postgres, search_path=CONTROL_SCHEMA, application="test")
    async with made as connections:
        await ahead.write(connections)
        await behind.write(connections)
    assert [api_keys.get(control, key.id).last_used_at_ms for key in (first, second, idle)] == [1_800_000_000_123] * 2 + [None]


def test_pages_of_keys_organizations_and_the_audit_log_meet_without_gap_or_overlap(control: Connection[Any], acme: Organization) -> None:
    other = organizations.create(
        control, ids.organization_id(*random_id()), name="Other", plan="free", rate_limit_per_minute=None, actor=ACTOR
    )
    made = [make(control, acme.id)[0] for _ in range(5)]
    make(control, other.id)
    first = api_keys.page(control, acme.id, after="", limit=3)
    assert [*first, *api_keys.page(control, acme.id, after=first[-1].id, limit=3)] == made
    assert organizations.page(control, after=acme.id, limit=1) == [other]
    newest = audit.page(control, acme.id, before=2**63 - 1, limit=4)
    rest = audit.page(control, acme.id, before=newest[-1].id, limit=100)
    seen = [*newest, *rest]
    assert [entry.id for entry in seen] == sorted((entry.id for entry in seen), reverse=True)
    assert {entry.organization for entry in seen} == {acme.id}
    assert len(seen) == 6


CHANGES: dict[str, tuple[Callable[[Connection[Any], Organization, str, str], object], int]] = {
    "rotate": (lambda control, acme, key, actor: rotate(control, key, actor=actor), 2),
    "expiring key": (lambda control, acme, key, actor: make(control, acme.id, expires_at_ms=SYSTEM.now_ms() + DAY_MS, actor=actor), 1),
    "suspend": (lambda control, acme, key, actor: organizations.update(control, acme.id, {"suspended": True}, actor=actor), 1),
    "update": (lambda control, acme, key, actor: organizations.update(control, acme.id, {"plan": "free"}, actor=actor), 1),
    "operator": (
        lambda control, acme, key, actor: operators.create(
            control, ids.operator_id(*random_id()), name="Ada", random=os.urandom(keys.RANDOM_BYTES), actor=actor
        ),
        1,
    ),
    "revoke operator": (
        lambda control, acme, key, actor: operators.revoke(control, operators.list_all(control)[0].id, actor=actor),
        1,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_and_its_audit_rows_are_there_together_or_not_at_all(control: Connection[Any], acme: Organization, change: str) -> None:
    def all_of_it() -> str:
        return everything(control) + repr(operators.list_all(control))

    key = make(control, acme.id)[0].id
    operators.create(control, ids.operator_id(1, bytes(10)), name="First", random=os.urandom(keys.RANDOM_BYTES), actor=ACTOR)
    do, rows = CHANGES[change]
    before, held = all_of_it(), len(audit.page(control, None, before=2**63 - 1, limit=100))
    with pytest.raises(psycopg.errors.NotNullViolation):  # from the audit row
        do(control, acme, key, cast(str, None))
    assert all_of_it() == before
    do(control, acme, key, ACTOR)
    assert all_of_it() != before
    assert len(audit.page(control, None, before=2**63 - 1, limit=100)) == held + rows
