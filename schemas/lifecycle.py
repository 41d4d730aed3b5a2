"""Records on `lifecycle`: what operators decided about records of other topics. Kept for ever, in the partition of what they are about."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from schemas.events import Milliseconds, Offset, TextField

_PARTITION_MAX: Final = 1 << 20


class Dropped(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="dropped"):
    """A dead letter or a rejected record that somebody decided to do nothing about. It stays where it is; lists leave it out.

    `topic`, `partition`, `offset` of topic generation `generation` are its place. `actor` decided it at `at_ms`, for the reason `why`.
    """

    v: int
    topic: TextField
    generation: Annotated[int, Meta(ge=1)]
    partition: Annotated[int, Meta(ge=0, le=_PARTITION_MAX)]
    offset: Offset
    actor: TextField
    at_ms: Milliseconds
    why: TextField | None = None


LifecycleRecord = Dropped
