"""Operators: the people and programs that run the system. Their tokens open the operator API and nothing of any organization's data.

A token is `zap_op_` and random letters and digits, 64 characters in all, shown once; only its SHA-256 is stored.
"""

from __future__ import annotations

import hmac
import re
from typing import Any, Final, NamedTuple

from psycopg import Connection

from access import audit, keys
from access.organizations import NAME_CHARS_MAX, NotThere
from access.texts import one_line
from access.times import iso
from runtime.sql import load
from schemas.ids import OperatorId

_START: Final = "zap_op_"
_FORM: Final = re.compile(rf"\A{_START}[0-9A-Za-z]{{{keys.KEY_CHARS - len(_START)}}}\Z")


class Operator(NamedTuple):
    """Times are Unix milliseconds; `last_used_at_ms` is right to the minute."""

    id: OperatorId
    name: str
    created_at_ms: int
    last_used_at_ms: int | None = None
    revoked_at_ms: int | None = None

    @property
    def actor(self) -> str:
        """What the operator is called in the audit log."""
        return f"operator:{self.id}"

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "state": "active" if self.revoked_at_ms is None else "revoked",
            "created_at": iso(self.created_at_ms),
            "last_used_at": iso(self.last_used_at_ms),
            "revoked_at": iso(self.revoked_at_ms),
        }


def well_formed(text: str) -> bool:
    """Whether `text` can be a token at all; anything else is refused without a look-up."""
    return _FORM.match(text) is not None


def create(connection: Connection[Any], operator: OperatorId, *, name: str, random: bytes, actor: str) -> tuple[Operator, str]:
    """The operator and the token, which is stored nowhere. Raises `ValueError`."""
    one_line("name", name, chars_max=NAME_CHARS_MAX)
    token = keys.drawn(_START, random)
    with connection.transaction():
        values = {"id": operator, "name": name, "hash": keys.digest(token)}
        row = connection.execute(load("access", "insert_operator"), values).fetchone()
        if row is None:
            raise RuntimeError("INSERT … RETURNING gave no row")
        audit.record(connection, actor=actor, action="operator.created", organization=None, target=operator, detail={"name": name})
    return Operator(operator, name, int(row[0])), token


def list_all(connection: Connection[Any]) -> list[Operator]:
    return [Operator._make(row) for row in connection.execute(load("access", "list_operators"))]


def revoke(connection: Connection[Any], operator: str, *, actor: str) -> None:
    """At once: tokens are cached nowhere. A second time changes nothing and is not audited. Raises `NotThere`."""
    with connection.transaction():
        if connection.execute(load("access", "revoke_operator"), {"id": operator}).fetchone() is not None:
            detail = {"before": {"revoked": False}, "after": {"revoked": True}}
            audit.record(connection, actor=actor, action="operator.revoked", organization=None, target=operator, detail=detail)
        elif connection.execute(load("access", "operator_exists"), {"id": operator}).fetchone() is None:
            raise NotThere(f"there is no operator {operator}: `triggers operator list` shows them")


def find(connection: Connection[Any], token: str) -> Operator | None:
    """Whose token it is; None for one that is unknown or revoked. Notes that it was used.

    Found by the SHA-256 of the whole token, of which a caller can choose no part to measure the look-up with, then compared in constant
    time.
    """
    hashed = keys.digest(token)
    row = connection.execute(load("access", "find_operator"), {"hash": hashed}).fetchone()
    if row is None or not hmac.compare_digest(bytes(row[-1]), hashed):
        return None
    operator = Operator._make(row[:-1])
    connection.execute(load("access", "note_operator_used"), {"id": operator.id})
    return operator
