from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, cast

import psycopg
import pytest
from psycopg import Connection

from access import changes, event_types, organizations
from access.changes import UNSET, LimitReached, Owner, TooManyChanges
from access.event_types import Change
from access.organizations import NotThere
from access.schema_walk import SchemaError
from ingest.catalogue import Catalogue
from runtime.clock import SYSTEM
from runtime.postgres import FOLDS_SCHEMA, connect, pool
from runtime.settings import PostgresSettings
from schemas import ids
from schemas.ids import OrganizationId
from schemas.problems import ProblemError
from tests.contract.new_ids import random_id

ACTOR = "key:key_1"
OBJECT, STRICT = b'{ "type":"object" }', b'{"type":"object","required":["a"]}'


def make_owner(control: Connection[Any]) -> Owner:
    made = ids.organization_id(*random_id())
    organizations.create(control, made, name="Acme", plan="pro", rate_limit_per_minute=None, actor=ACTOR)
    control.execute("DELETE FROM control.audit_log")
    return Owner(made, "live")


@pytest.fixture
def owner(control: Connection[Any]) -> Owner:
    return make_owner(control)


def put(control: Connection[Any], owner: Owner, event_type: str = "order.paid", actor: str = ACTOR, **members: Any) -> Change:
    return event_types.put(control, owner, event_type, **{"description": UNSET, "schema": UNSET, **members}, actor=actor)


def version(control: Connection[Any]) -> int:
    row = control.execute("SELECT version FROM control.revocation").fetchone()
    assert row is not None
    return int(row[0])


def audited(control: Connection[Any]) -> list[tuple[Any, ...]]:
    return control.execute("SELECT actor, action, organization, target, detail FROM control.audit_log ORDER BY id").fetchall()


def everything(control: Connection[Any]) -> list[Any]:
    tables = ("event_types", "event_type_schemas", "revocation", "audit_log")
    return [
        control.execute(
            f"SELECT * FROM control.{table} ORDER BY 1, 2, 3, 4".encode() if table != "revocation" else b"SELECT * FROM control.revocation"
        ).fetchall()
        for table in tables
    ]


def test_a_type_is_shown_as_it_was_put_with_the_bytes_of_its_schema(control: Connection[Any], owner: Owner) -> None:
    before = version(control)
    made = put(control, owner, description="Paid in full", schema=OBJECT)
    assert (made.created, made.warnings, made.revocation_version) == (True, [], before + 1)
    assert version(control) == before + 1
    found = event_types.get(control, owner, "order.paid")
    assert found == made.event_type
    assert (found.type, found.description, found.schema_version, found.schema) == ("order.paid", "Paid in full", 1, OBJECT)
    assert audited(control) == [
        (ACTOR, "event_type.created", owner.organization, "order.paid",
         {"mode": "live", "changed": ["description", "schema"], "description": "Paid in full", "schema_version": 1})
    ]  # fmt: skip


def test_what_is_left_out_stays_and_null_ends_the_checking(control: Connection[Any], owner: Owner) -> None:
    put(control, owner, description="Paid", schema=OBJECT)
    changed = put(control, owner, description="Paid in full")
    assert (changed.created, changed.event_type.schema, changed.warnings) == (False, OBJECT, [])
    changed = put(control, owner, schema=None)
    assert (changed.event_type.description, changed.event_type.schema, changed.event_type.schema_version) == ("Paid in full", None, None)
    assert [row[4]["changed"] for row in audited(control)] == [["description", "schema"], ["description"], ["schema"]]
    assert [one.version for one in event_types.versions(control, owner, "order.paid")[0]] == [1]


def test_versions_are_numbered_from_1_and_the_same_text_makes_none(control: Connection[Any], owner: Owner) -> None:
    for schema, number in ((OBJECT, 1), (STRICT, 2), (OBJECT, 3), (None, None), (OBJECT, 3), (b'{"type":"object"}', 4)):
        assert put(control, owner, schema=schema).event_type.schema_version == number
    before = everything(control)
    same = put(control, owner, description="", schema=b'{"type":"object"}')
    assert (same.created, same.warnings, same.revocation_version) == (False, [], None)
    assert everything(control) == before, "what changes nothing is not audited and empties no cache"
    found, more = event_types.versions(control, owner, "order.paid")
    assert [(one.version, one.schema, one.sha256) for one in found] == [
        (number, schema, hashlib.sha256(schema).digest())
        for number, schema in ((4, b'{"type":"object"}'), (3, OBJECT), (2, STRICT), (1, OBJECT))
    ]
    assert not more
    page, more = event_types.versions(control, owner, "order.paid", before=4, limit=2)
    assert ([one.version for one in page], more) == ([3, 2], True)


def test_a_deleted_type_is_gone_its_versions_are_not_and_numbering_goes_on(control: Connection[Any], owner: Owner) -> None:
    put(control, owner, description="Paid", schema=OBJECT)
    before = version(control)
    assert event_types.delete(control, owner, "order.paid", actor=ACTOR) == before + 1
    assert audited(control)[-1] == (
        ACTOR, "event_type.deleted", owner.organization, "order.paid", {"mode": "live", "schema_version": 1},
    )  # fmt: skip
    assert event_types.list_page(control, owner) == ([], False)
    for call in (
        lambda: event_types.get(control, owner, "order.paid"),
        lambda: event_types.delete(control, owner, "order.paid", actor=ACTOR),
    ):
        with pytest.raises(NotThere, match=r"no event type order\.paid"):
            call()
    assert [one.schema for one in event_types.versions(control, owner, "order.paid")[0]] == [OBJECT]
    again = put(control, owner, schema=STRICT)
    assert (again.created, again.warnings, again.event_type.schema_version, again.event_type.description) == (True, [], 2, "")


def test_live_and_test_and_organizations_do_not_see_each_other(control: Connection[Any], owner: Owner) -> None:
    put(control, owner, schema=OBJECT)
    for other in (owner._replace(mode="test"), make_owner(control)):
        with pytest.raises(NotThere):
            event_types.get(control, other, "order.paid")
        with pytest.raises(NotThere):
            event_types.versions(control, other, "order.paid")
        with pytest.raises(NotThere):
            event_types.delete(control, other, "order.paid", actor=ACTOR)
        assert event_types.list_page(control, other) == ([], False)
        assert put(control, other, schema=STRICT).event_type.schema_version == 1
    assert event_types.get(control, owner, "order.paid").schema == OBJECT


def test_pages_go_by_name_without_gap_or_repeat(control: Connection[Any], owner: Owner) -> None:
    names = sorted(["a", "a.b", "a-b", "A", "_", "z9", "Z", "a_b"])
    for name in reversed(names):
        put(control, owner, name)
    walked: list[str] = []
    more = True
    while more:
        page, more = event_types.list_page(control, owner, after=walked[-1] if walked else "", limit=3)
        walked += [one.type for one in page]
    assert walked == names


def test_a_change_warns_of_events_that_may_no_longer_be_valid(control: Connection[Any], owner: Owner) -> None:
    assert put(control, owner).warnings == []
    assert [one.change for one in put(control, owner, schema=OBJECT).warnings] == ["payloads of this type were not checked before"]
    assert put(control, owner, schema=STRICT).warnings == [("/required", "now required: a")]
    assert put(control, owner, schema=OBJECT).warnings == []
    assert put(control, owner, schema=None).warnings == []


@pytest.mark.parametrize(
    ("event_type", "members", "says"),
    [
        ("a b", {}, "no event type"),
        ("a\n", {}, "no event type"),
        ("", {}, "no event type"),
        ("a" * 257, {}, "no event type"),
        ("triggers.mine", {}, "begin with triggers"),
        ("a", {"description": "x" * 1_001}, "the description must have"),
        ("a", {"description": "a\x00b"}, "the description must have"),
        ("a", {"schema": b'{"properties":{"a":{"type":"made-up"}}}'}, "at /properties/a/type"),
        ("a", {"schema": b"[]"}, "must be a JSON object"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    control: Connection[Any], owner: Owner, event_type: str, members: dict[str, Any], says: str
) -> None:
    before = everything(control)
    with pytest.raises(ValueError, match=says):
        put(control, owner, event_type, **members)
    with pytest.raises(NotThere, match="no organization org_none"):
        put(control, Owner("org_none", "live"))
    assert everything(control) == before


def test_limits_hold_for_each_organization_and_mode_by_itself(
    control: Connection[Any], owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_types, "TYPES_MAX", 2)
    monkeypatch.setattr(event_types, "TYPES_EVER_MAX", 3)
    monkeypatch.setattr(event_types, "SCHEMAS_BYTES_MAX", len(OBJECT) + len(STRICT))
    put(control, owner, "a", schema=OBJECT)
    put(control, owner, "b", schema=STRICT)
    put(control, owner, "b", description="a change is no addition", schema=STRICT)
    for again in range(2):
        with pytest.raises(LimitReached, match="there may be 2 event types"):
            put(control, owner, f"c{again}")
    with pytest.raises(LimitReached, match="together"):
        put(control, owner, "b", schema=STRICT + b" ")
    event_types.delete(control, owner, "b", actor=ACTOR)
    put(control, owner, "c")
    event_types.delete(control, owner, "c", actor=ACTOR)
    with pytest.raises(LimitReached):
        put(control, owner, "d")
    put(control, owner, "b")
    put(control, owner._replace(mode="test"), "d", schema=STRICT)
    monkeypatch.setattr(event_types, "VERSIONS_MAX", 2)
    put(control, owner, "a", schema=b"{}")
    with pytest.raises(LimitReached, match="2 versions"):
        put(control, owner, "a", schema=b"{ }")


def test_changes_that_come_too_fast_are_held_back(control: Connection[Any], owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_types, "CHANGES_PER_MINUTE_MAX", 3)
    for number in range(3):
        put(control, owner, description=str(number))
    before = everything(control)
    with pytest.raises(TooManyChanges, match="3 times a minute"):
        put(control, owner, description="4")
    with pytest.raises(TooManyChanges):
        event_types.delete(control, owner, "order.paid", actor=ACTOR)
    assert everything(control) == before
    put(control, owner, description="2")  # changes nothing
    put(control, make_owner(control))
    control.execute("UPDATE control.audit_log SET at = at - interval '61 seconds'")
    put(control, owner, description="4")


CHANGES: dict[str, Callable[[Connection[Any], Owner, str], object]] = {
    "created": lambda control, owner, actor: put(control, owner, "new", actor, schema=OBJECT),
    "description": lambda control, owner, actor: put(control, owner, actor=actor, description="other"),
    "schema": lambda control, owner, actor: put(control, owner, actor=actor, schema=STRICT),
    "unchecked": lambda control, owner, actor: put(control, owner, actor=actor, schema=None),
    "deleted": lambda control, owner, actor: event_types.delete(control, owner, "order.paid", actor=actor),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_its_audit_row_and_the_version_are_there_together_or_not_at_all(
    control: Connection[Any], owner: Owner, change: str
) -> None:
    put(control, owner, schema=OBJECT)
    before, rows, raised = everything(control), len(audited(control)), version(control)
    with pytest.raises(psycopg.errors.NotNullViolation):
        CHANGES[change](control, owner, cast(str, None))
    assert everything(control) == before
    CHANGES[change](control, owner, ACTOR)
    assert (len(audited(control)), version(control)) == (rows + 1, raised + 1)


def test_changes_of_one_organization_come_one_after_the_other(control: Connection[Any], owner: Owner, postgres: PostgresSettings) -> None:
    put(control, owner, schema=OBJECT)
    with connect(postgres, application="test") as other:
        other.autocommit = True
        with other.transaction():
            changes.lock(other, owner)
            control.execute("SET lock_timeout = '200ms'")
            for name in ("order.paid", "another"):  # also of another type: the limits are the organization's
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    put(control, owner, name, schema=STRICT)
            put(control, make_owner(control))
    assert put(control, owner, schema=STRICT).event_type.schema_version == 2


async def test_the_catalogue_reads_what_is_enforced_and_only_that(
    control: Connection[Any], owner: Owner, postgres: PostgresSettings
) -> None:
    put(control, owner, "a", schema=OBJECT)
    put(control, owner, "a", schema=STRICT)
    put(control, owner, "unchecked")
    put(control, owner, "deleted", schema=OBJECT)
    event_types.delete(control, owner, "deleted", actor=ACTOR)
    put(control, owner._replace(mode="test"), "a", schema=OBJECT)
    organization, changes = OrganizationId(owner.organization), 0
    async with pool(postgres, search_path=FOLDS_SCHEMA, application="test") as connections:
        catalogue = Catalogue(connections, SYSTEM, lambda: changes)
        live = await catalogue.validators(organization, "live")
        assert (live.version, {name: schema.version for name, schema in live.schemas.items()}) == (version(control), {"a": 2})
        with pytest.raises(ProblemError) as caught:
            live.check("a", b"{}")
        assert caught.value.members["schema_version"] == 2
        for event_type in ("unchecked", "deleted", "never heard of"):
            live.check(event_type, b"1")
        (await catalogue.validators(organization, "test")).check("a", b"{}")
        assert (await catalogue.validators(OrganizationId("org_none"), "live")).schemas == {}

        put(control, owner, "a", schema=OBJECT)
        changes += 1
        assert catalogue.known(organization, "live") is None
        renewed = await catalogue.validators(organization, "live")
        renewed.check("a", b"{}")
        assert renewed.version == version(control)


def test_the_search_path_of_a_pool_decides_nothing(control: Connection[Any], owner: Owner, postgres: PostgresSettings) -> None:
    with connect(postgres, search_path="public", application="test") as connection:
        connection.autocommit = True
        assert put(connection, owner, schema=OBJECT).created
        assert event_types.list_page(connection, owner)[0][0].type == "order.paid"


def test_a_stored_schema_of_other_rules_does_not_stop_its_replacement(control: Connection[Any], owner: Owner) -> None:
    put(control, owner, schema=OBJECT)
    control.execute("UPDATE control.event_type_schemas SET schema = %s", (b'{"$ref":"elsewhere"}',))
    assert [one.change for one in put(control, owner, schema=STRICT).warnings] == ["the schema before this one cannot be compared"]
    with pytest.raises(SchemaError):
        put(control, owner, schema=b'{"$ref":"elsewhere"}')
