"""Records on `lifecycle`: what operators decided about records of other topics. Kept for ever, in the partition of what they are about."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from schemas.deliveries import FIRST_ROUND, AnyRoundField, EndpointIdField
from schemas.events import EventIdField, Milliseconds, Offset, TextField

_PARTITION_MAX: Final = 1 << 20


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


LifecycleRecord = Dropped
