"""Records on `lifecycle`: what operators decided about records of other topics. Kept for ever, in the partition of what they are about."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from schemas.deliveries import FIRST_ROUND, AnyRoundField, EndpointIdField
from schemas.events import DataKeyIdField, EventIdField, Milliseconds, Mode, Offset, OrganizationIdField, TextField

_PARTITION_MAX: Final = 1 << 20
#: Data keys that one record of an erasure names: far below what a record may hold.
ERASED_KEYS_MAX: Final = 10_000
#: A time that an event's id can hold.
IdTime = Annotated[int, Meta(ge=0, lt=1 << 48)]


class LetterOf(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The delivery that a dead letter tells of. Letters go after 30 days; that nothing is to be done about this one is known for longer."""

    event_id: EventIdField
    endpoint_id: EndpointIdField
    round: AnyRoundField = FIRST_ROUND


class Dropped(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="dropped"):
    """A dead letter or a rejected record that somebody decided to do nothing about. It stays where it is; lists leave it out.

    `topic`, `partition`, `offset` of topic generation `generation` are its place. `actor` decided it at `at_ms`, for the reason `why`.
    `letter`: what a dead letter was about; None of a rejected record.
    """

    v: int
    topic: TextField
    generation: Annotated[int, Meta(ge=1)]
    partition: Annotated[int, Meta(ge=0, le=_PARTITION_MAX)]
    offset: Offset
    actor: TextField
    at_ms: Milliseconds
    why: TextField | None = None
    letter: LetterOf | None = None


class RetentionMoved(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="retention_moved"):
    """From here on nothing is shown of an organization and mode's events whose id is older than `before_ms` (Unix milliseconds).

    Key: organization. The highest mark holds, in whatever order records are read: what retention took does not come back.
    """

    v: int
    organization: OrganizationIdField
    mode: Mode
    before_ms: IdTime
    actor: TextField
    at_ms: Milliseconds


class Erased(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="erased"):
    """Data keys that are destroyed, for ever: of one subject, or of the whole organization. Key: organization.

    It names no subject. `keys` are deleted again wherever this record is read (`access.erasure`), so that a control plane restored
    from an older dump does not bring them back. `actor` asked for it at `at_ms`. An erasure of many keys is several records.
    """

    v: int
    organization: OrganizationIdField
    what: Literal["subject", "organization"]
    keys: Annotated[list[DataKeyIdField], Meta(min_length=1, max_length=ERASED_KEYS_MAX)]
    actor: TextField
    at_ms: Milliseconds


LifecycleRecord = Dropped | RetentionMoved | Erased
