"""What the operator API takes: types for decoding. How it is documented is `access.operator_docs`."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from access import api_keys, keys, organizations
from access.organizations import Change
from access.times import Time, unix_ms
from schemas.events import Mode
from schemas.problems import INVALID_REQUEST, ProblemError

Plan = Literal["free", "starter", "pro", "enterprise"]
Name = Annotated[str, Meta(min_length=1, max_length=organizations.NAME_CHARS_MAX)]
RateLimit = Annotated[int, Meta(ge=1, le=organizations.RATE_LIMIT_MAX, description="Events a minute; null is the plan's.")]

RetentionDays = Annotated[
    int,
    Meta(
        ge=0, le=organizations.RETENTION_DAYS_MAX,
        description="How long events stay readable, once `triggers retention apply` runs; 0: for ever, null: as the plan has it.",
    ),
]  # fmt: skip


class NewOrganization(Struct, forbid_unknown_fields=True):
    name: Name
    plan: Plan = "free"
    rate_limit_per_minute: RateLimit | None = None


class OrganizationChange(Struct, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    name: Name | UnsetType = UNSET
    plan: Plan | UnsetType = UNSET
    rate_limit_per_minute: RateLimit | UnsetType | None = UNSET
    suspended: bool | UnsetType = UNSET
    encryption: Annotated[bool, Meta(description="Whether events that come from now on are encrypted.")] | UnsetType = UNSET
    retention_days: RetentionDays | UnsetType | None = UNSET

    def change(self) -> Change:
        return cast(Change, {name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET})


class NewKey(Struct, forbid_unknown_fields=True):
    """At most one of `expires_at` and `expires_in_s`; with neither the key does not expire."""

    name: Name
    scopes: Annotated[list[keys.Scope], Meta(min_length=1, max_length=len(keys.SCOPES))]
    mode: Mode = "live"
    expires_at: Time | None = None
    expires_in_s: Annotated[int, Meta(ge=1, le=api_keys.LIFETIME_S_MAX)] | None = None

    def expires_at_ms(self, now_ms: int) -> int | None:
        """Raises the problem `invalid-request`."""
        if self.expires_at is not None and self.expires_in_s is not None:
            raise ProblemError(INVALID_REQUEST, "Send expires_at or expires_in_s, not both.")
        if self.expires_at is not None:
            return unix_ms(self.expires_at)
        return None if self.expires_in_s is None else now_ms + self.expires_in_s * 1000


class Rotation(Struct, forbid_unknown_fields=True):
    overlap_s: Annotated[int, Meta(ge=0, le=api_keys.OVERLAP_S_MAX, description="How long the old key goes on working.")] = (
        api_keys.OVERLAP_S_DEFAULT
    )
