"""The life of API keys: created (shown once), listed, rotated, expired, revoked.

How they are found on a request is `access.keys` and `access.auth`. Times of this module are the database's, so that whoever makes a
change on whatever machine means the same moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from psycopg import Connection

from access import audit, epoch, keys, organizations
from access.organizations import NotPossible, NotThere
from access.texts import one_line
from access.times import iso
from runtime.sql import load
from schemas.events import Mode
from schemas.ids import ApiKeyId

State = Literal["active", "expiring", "expired", "revoked"]

#: A key that ends within this is shown as expiring.
EXPIRING_S: Final = 7 * 86_400
#: A rotated key may go on working this long: after that two keys are two keys.
OVERLAP_S_MAX: Final = 90 * 86_400
OVERLAP_S_DEFAULT: Final = 86_400
#: Further away is a mistyped date.
LIFETIME_S_MAX: Final = 10 * 366 * 86_400


class ApiKey(NamedTuple):
    """A key as operators see it: never its text or hash. Times are Unix milliseconds."""

    id: ApiKeyId
    organization: str
    mode: Mode
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at_ms: int
    expires_at_ms: int | None = None
    last_used_at_ms: int | None = None
    revoked_at_ms: int | None = None
    rotated_from: str | None = None
    rotated_to: str | None = None

    @property
    def revoked(self) -> bool:
        return self.revoked_at_ms is not None

    def state(self, now_ms: int) -> State:
        if self.revoked:
            return "revoked"
        if self.expires_at_ms is None or self.expires_at_ms > now_ms + EXPIRING_S * 1000:
            return "active"
        return "expiring" if self.expires_at_ms > now_ms else "expired"

    def shown(self, now_ms: int) -> dict[str, Any]:
        """For people and scripts: the state in a word, times in RFC 3339."""
        return {
            "id": self.id,
            "organization": self.organization,
            "mode": self.mode,
            "name": self.name,
            "prefix": self.prefix,
            "scopes": list(self.scopes),
            "state": self.state(now_ms),
            "created_at": iso(self.created_at_ms),
            "expires_at": iso(self.expires_at_ms),
            "last_used_at": iso(self.last_used_at_ms),
            "revoked_at": iso(self.revoked_at_ms),
            "rotated_from": self.rotated_from,
            "rotated_to": self.rotated_to,
        }


class Rotated(NamedTuple):
    """`text` is stored nowhere. `version` is the revocation version that caches must see (see `access.epoch`)."""

    new: ApiKey
    text: str
    old: ApiKey
    version: int


def create(
    connection: Connection[Any],
    key_id: ApiKeyId,
    *,
    organization: str,
    mode: Mode,
    name: str,
    scopes: Sequence[str],
    random: bytes,
    actor: str,
    expires_at_ms: int | None = None,
) -> tuple[ApiKey, str]:
    """The key's row and its text, which is stored nowhere. Raises `NotThere`, `ValueError`."""
    if unknown := set(scopes) - set(keys.SCOPES):
        raise ValueError(f"there is no scope {', '.join(sorted(unknown))}: the scopes are {', '.join(keys.SCOPES)}")
    if not scopes:
        raise ValueError("a key needs at least one scope")
    one_line("name", name, chars_max=organizations.NAME_CHARS_MAX)
    organizations.get(connection, organization)
    text = keys.generate(mode, random)
    scopes = tuple(dict.fromkeys(scopes))
    with connection.transaction():
        made = _insert(
            connection, ApiKey(key_id, organization, mode, name, keys.prefix(text), scopes, 0, expires_at_ms), keys.digest(text), actor
        )
    return made, text


def rotate(connection: Connection[Any], key_id: str, new_id: ApiKeyId, *, overlap_s: int, random: bytes, actor: str) -> Rotated:
    """A new key with the name, mode, scopes and lifetime of an old one, which ends after `overlap_s` (or when it would have ended anyway).

    Raises `NotThere`, `ValueError`, and `NotPossible` for a key that is over or was rotated before.
    """
    if not 0 <= overlap_s <= OVERLAP_S_MAX:
        raise ValueError(f"the overlap must be 0 to {OVERLAP_S_MAX} seconds ({OVERLAP_S_MAX // 86_400} days)")
    with connection.transaction():
        locked = connection.execute(load("access", "lock_key"), {"id": key_id}).fetchone()
        if locked is None:
            raise _not_there(key_id)
        now_ms = int(locked[0])
        old = get(connection, key_id)  # a statement of its own: it sees what the lock was waited for
        if (state := old.state(now_ms)) in ("revoked", "expired"):
            raise NotPossible(f"the key is {state}: create a new one")
        if old.rotated_to is not None:
            raise NotPossible(f"the key was rotated to {old.rotated_to} before: rotate that one")
        text = keys.generate(old.mode, random)
        lifetime_ms = None if old.expires_at_ms is None else old.expires_at_ms - old.created_at_ms
        successor = old._replace(
            id=new_id,
            prefix=keys.prefix(text),
            expires_at_ms=None if lifetime_ms is None else now_ms + lifetime_ms,
            last_used_at_ms=None,
            rotated_from=old.id,
        )
        ends_ms = now_ms + overlap_s * 1000
        ends_ms = ends_ms if old.expires_at_ms is None else min(ends_ms, old.expires_at_ms)
        new = _insert(connection, successor, keys.digest(text), actor)
        connection.execute(load("access", "expire_key"), {"id": old.id, "expires_at_ms": ends_ms})
        audit.record(
            connection,
            actor=actor,
            action="api_key.rotated",
            organization=old.organization,
            target=old.id,
            detail={
                "before": {"expires_at": iso(old.expires_at_ms)},
                "after": {"expires_at": iso(ends_ms), "rotated_to": new.id},
                "overlap_s": overlap_s,
            },
        )
        version = epoch.raise_version(connection)
    return Rotated(new, text, old._replace(expires_at_ms=ends_ms, rotated_to=new.id), version)


def _insert(connection: Connection[Any], key: ApiKey, hashed: bytes, actor: str) -> ApiKey:
    """Within the caller's transaction. Raises `ValueError` for an expiry that is over or too far away."""
    row = connection.execute(load("access", "insert_key"), {**key._asdict(), "scopes": list(key.scopes), "hash": hashed}).fetchone()
    if row is None:
        raise RuntimeError("INSERT … RETURNING gave no row")
    made = key._replace(created_at_ms=int(row[0]))
    if made.expires_at_ms is not None and not made.created_at_ms < made.expires_at_ms <= made.created_at_ms + LIFETIME_S_MAX * 1000:
        raise ValueError("the expiry must lie in the future, at most 10 years from now")
    detail: dict[str, Any] = {"name": made.name, "mode": made.mode, "scopes": list(made.scopes), "expires_at": iso(made.expires_at_ms)}
    if made.rotated_from is not None:
        detail["rotated_from"] = made.rotated_from
    audit.record(connection, actor=actor, action="api_key.created", organization=made.organization, target=made.id, detail=detail)
    return made


def revoke(connection: Connection[Any], key_id: str, *, actor: str) -> int:
    """Revoke at once; returns the revocation version that caches must see (see `access.epoch`). Raises `NotThere`.

    A second time changes nothing and is not audited; its version lets a caller tell caches that were out of reach the first time.
    """
    with connection.transaction():
        row = connection.execute(load("access", "revoke_key"), {"id": key_id}).fetchone()
        if row is None:
            if connection.execute(load("access", "key_exists"), {"id": key_id}).fetchone() is None:
                raise _not_there(key_id)
            return epoch.current_version(connection)
        detail = {"before": {"revoked": False}, "after": {"revoked": True}}
        audit.record(connection, actor=actor, action="api_key.revoked", organization=row[0], target=key_id, detail=detail)
        return epoch.raise_version(connection)


def get(connection: Connection[Any], key_id: str) -> ApiKey:
    """Raises `NotThere`."""
    row = connection.execute(load("access", "find_key"), {"id": key_id}).fetchone()
    if row is None:
        raise _not_there(key_id)
    return _key(row)


def page(connection: Connection[Any], organization: str | None, *, after: str, limit: int | None) -> list[ApiKey]:
    """Oldest first, of one organization or of all, from the one after an id on (an empty one is before all)."""
    rows = connection.execute(load("access", "list_keys"), {"organization": organization, "after": after, "limit": limit})
    return [_key(row) for row in rows]


def list_all(connection: Connection[Any]) -> list[ApiKey]:
    return page(connection, None, after="", limit=None)


def _key(row: tuple[Any, ...]) -> ApiKey:
    return ApiKey._make((*row[:5], tuple(row[5]), *row[6:]))


def _not_there(key_id: str) -> NotThere:
    return NotThere(f"there is no API key {key_id}: `triggers key list` shows them")
