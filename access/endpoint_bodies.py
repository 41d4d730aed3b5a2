"""What an endpoint can be told, as integrators write it: types for decoding and the rules on top of them. Pure but for the URL's rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from access import egress, endpoint_schedules
from access.custom_headers import HEADERS_MAX, NAME_CHARS_MAX, check_headers, check_name
from access.egress import URL_CHARS_MAX, check_url
from access.endpoint_schedules import ScheduleName
from access.event_filters import FILTERS_MAX, check_event_types
from access.merge_patch import merge
from access.texts import one_line
from runtime.settings import Settings

DESCRIPTION_CHARS_MAX: Final = 1_000
#: A day, as with API keys; a week is the longest a leaked secret should go on signing.
OVERLAP_S_DEFAULT: Final = 86_400
OVERLAP_S_MAX: Final = 7 * 86_400
#: What the column (PostgreSQL integer) holds.
_INTEGER_MAX: Final = 2**31 - 1

#: How a receiver of another sender checks what it gets (`delivery.sign` makes them).
Scheme = Literal["sha256-hex-body", "t-v1-hex", "base64-body"]
Pause = Annotated[float, Meta(ge=endpoint_schedules.PAUSE_S_MIN, le=endpoint_schedules.PAUSE_S_MAX)]


EventTypes = Annotated[
    list[str], Meta(min_length=1, max_length=FILTERS_MAX, description="By name, or order.* for all below order; null: all.")
]


class LegacySignature(Struct, frozen=True, forbid_unknown_fields=True):
    header: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
    scheme: Scheme


class Configuration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that can be chosen about an endpoint. Null or left out is the default."""

    url: Annotated[str, Meta(max_length=URL_CHARS_MAX, description="Where events are posted to.")]
    description: Annotated[str, Meta(max_length=DESCRIPTION_CHARS_MAX)] = ""
    event_types: EventTypes | None = None
    headers: Annotated[dict[str, str], Meta(max_length=HEADERS_MAX, description="Sent along with every event.")] = {}
    rate_per_minute: Annotated[int, Meta(ge=1, le=_INTEGER_MAX, description="Deliveries; null: no limit of its own.")] | None = None
    concurrency: Annotated[int, Meta(ge=1, le=64, description="Attempts at once; null: what the worker allows.")] | None = None
    schedule: Annotated[ScheduleName, Meta(description="Pauses before attempts 2, 3, …; `custom` are those of `schedule_s`.")] = "default"
    schedule_s: Annotated[list[Pause], Meta(min_length=1, max_length=endpoint_schedules.PAUSES_MAX)] | None = None
    deadline_s: Annotated[float, Meta(ge=1, le=60, description="Of one attempt, in all; null: the service's.")] | None = None
    legacy_signature: LegacySignature | None = None
    fifo: Annotated[bool, Meta(description="One event after the other, in order. Chosen when it is made.")] = False
    fifo_block: Annotated[bool, Meta(description="With fifo: goes on trying when the schedule is used up, and nothing overtakes.")] = False


class Rotation(Struct, frozen=True, forbid_unknown_fields=True):
    """`secret`: one of the caller's, `whsec_…`; else one is made."""

    overlap_s: Annotated[int, Meta(ge=0, le=OVERLAP_S_MAX, description="How long the old secret goes on signing.")] = OVERLAP_S_DEFAULT
    secret: str | None = None


class Rules(NamedTuple):
    """What the deployment allows: where endpoints may be, and how many an organization and mode may have."""

    egress: egress.Rules
    endpoints_max: int

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        return cls(egress.rules(settings), settings.access.endpoints_max)


def changed(now: Configuration | None, patch: Mapping[str, Any], rules: Rules) -> Configuration:
    """`now` after a merge patch (RFC 7396), checked; without `now`, a new one. Raises `ValueError`.

    Naming a schedule drops pauses of one's own; giving pauses makes the schedule `custom`.
    """
    wanted = dict(patch)
    if "schedule_s" in wanted:
        wanted.setdefault("schedule", "custom" if wanted["schedule_s"] is not None else "default")
    elif wanted.get("schedule", "custom") != "custom":
        wanted["schedule_s"] = None
    before = {} if now is None else msgspec.to_builtins(now)
    try:
        after = msgspec.convert(merge(before, wanted), Configuration)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("that is nested too deeply") from None
    return _checked(after, now, rules)


def _checked(given: Configuration, now: Configuration | None, rules: Rules) -> Configuration:
    check_url(given.url, rules.egress)
    one_line("description", given.description, chars_min=0, chars_max=DESCRIPTION_CHARS_MAX)
    check_headers(given.headers)
    if given.legacy_signature is not None:
        check_name(given.legacy_signature.header)
        if given.legacy_signature.header.lower() in {name.lower() for name in given.headers}:
            raise ValueError(f"the header {given.legacy_signature.header} cannot hold a value of your own and the signature")
    if (given.schedule == "custom") != (given.schedule_s is not None):
        raise ValueError("schedule_s belongs to the schedule custom, and to no other")
    if given.fifo_block and not given.fifo:
        raise ValueError("fifo_block belongs to fifo: an endpoint without an order has nothing to wait for")
    if given.fifo and given.concurrency not in (None, 1):
        raise ValueError("an endpoint with fifo is sent one event at a time: leave concurrency out")
    if now is not None and now.fifo != given.fifo:
        raise ValueError("fifo is chosen when an endpoint is made: make another one, then delete this one")
    return msgspec.structs.replace(
        given,
        event_types=None if given.event_types is None else list(check_event_types(given.event_types)),
        schedule_s=None if given.schedule_s is None else list(endpoint_schedules.check_pauses(given.schedule_s)),
    )
