"""Operators and their tokens, on a real PostgreSQL."""

from __future__ import annotations

import os
from typing import Any

import pytest
from psycopg import Connection

from access import keys, operators
from access.organizations import NotThere
from schemas import ids
from tests.contract.new_ids import random_id
from tests.contract.test_control_plane import everything
from tests.contract.test_key_life import ACTOR, entries


def test_an_operator_is_found_by_the_token_alone_which_is_stored_nowhere(control: Connection[Any]) -> None:
    random = os.urandom(keys.RANDOM_BYTES)
    made, token = operators.create(control, ids.operator_id(*random_id()), name="Ada", random=random, actor=ACTOR)
    assert token.startswith("zap_op_")
    assert len(token) == 64
    assert operators.well_formed(token)
    assert not keys.well_formed(token)
    found = operators.find(control, token)
    assert found is not None
    assert (found.id, found.name, found.actor) == (made.id, "Ada", f"operator:{made.id}")
    assert operators.find(control, token[:-1] + ("0" if token[-1] != "0" else "1")) is None
    (listed,) = operators.list_all(control)
    assert listed.last_used_at_ms is not None
    (entry,) = entries(control, 1)
    assert (entry.action, entry.target, entry.detail) == ("operator.created", made.id, {"name": "Ada"})
    held = everything(control) + repr(control.execute("SELECT * FROM control.operators").fetchall())
    assert token not in held
    assert token[7:] not in held


def test_a_revoked_operator_is_found_no_more_and_stays_revoked_since_the_first_time(control: Connection[Any]) -> None:
    made, token = operators.create(control, ids.operator_id(*random_id()), name="Ada", random=os.urandom(keys.RANDOM_BYTES), actor=ACTOR)
    operators.revoke(control, made.id, actor=ACTOR)
    since = operators.list_all(control)
    operators.revoke(control, made.id, actor="test:bob")
    assert operators.find(control, token) is None
    assert operators.list_all(control) == since
    assert since[0].shown()["state"] == "revoked"
    assert [entry.action for entry in entries(control, 9)] == ["operator.created", "operator.revoked"]
    with pytest.raises(NotThere, match="there is no operator opr_none"):
        operators.revoke(control, "opr_none", actor=ACTOR)
